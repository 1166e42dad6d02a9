//! The reference of all settings. `docs/CONFIGURATION.md`, `.env.example` and the file that
//! `octopus init` writes are generated from it.

mod model;
mod render;
mod settings;

pub use model::{Group, Kind, Setting};
pub use render::{env_file, markdown};
pub use settings::GROUPS;
