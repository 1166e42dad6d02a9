//! The configuration. The server reads it once from the environment and `.env`, and validates all
//! of it before it starts. `.env.example` lists every variable with its default.

mod audit;
mod backups;
mod bootstrap;
mod configuration;
mod database_url;
mod limits;
mod password;
mod proxies;
mod public_url;
mod quota;
mod rate_limits;
mod reader;
pub mod reference;
mod retention;
mod secrets;
mod sessions;
mod webhook;

pub use audit::AuditConfig;
pub use backups::BackupSchedule;
pub use configuration::{Config, LogFormat, PasswordHasher, Registration};
pub use database_url::{DatabaseUrl, DatabaseUrlError};
pub use limits::Limits;
pub use password::PasswordCost;
pub use quota::StorageQuota;
pub use rate_limits::RateLimits;
pub use reader::ConfigError;
pub use retention::RetentionConfig;
pub use secrets::{KEY_MIN_LENGTH, Weakness, is_placeholder, weakness};
pub use sessions::SessionLimits;
pub use webhook::WebhookConfig;
