//! API key models: database rows, request and response bodies, and their validation.

mod api_key;
mod audit_log;
mod usage;
mod verification;

pub use api_key::{
    ApiKey, ApiKeyChanges, ApiKeyFilter, CleanupReport, CreateApiKey, CreatedApiKey, ExpiryPeriod,
    NewApiKey, RotateApiKey, Rotation, UpdateApiKey,
};
pub use audit_log::{AuditFilter, AuditLog};
pub use usage::{Granularity, UsageBucket, UsageCounts, UsageFilter, UsageReport};
pub use verification::{
    KeyRateLimit, VerificationCode, VerificationRequest, VerifiedApiKey, VerifyApiKey,
};
