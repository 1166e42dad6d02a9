//! Plans the migration of a schema, forward only.
//!
//! Refuses, and does not change, a database of the FastAPI application, a database with tables of
//! another program, and a database of a newer Octopus that this version cannot use.

use super::error::OpenError;
use sqlx::migrate::{AppliedMigration, Migrate, Migrator};

/// Selects the last migration that a version of Octopus must know to use the database.
pub(super) const READABLE_FROM: &str = "SELECT readable_from FROM installation WHERE id = 1";

/// What opening a database may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Create a missing SQLite file, and the schema in an empty database.
    pub(super) create: bool,
    /// Upgrade an older schema.
    pub(super) migrate: bool,
}

impl Changes {
    /// Returns whether anything may be changed.
    pub(super) fn any(self) -> bool {
        self.create || self.migrate
    }
}

/// What must happen to the schema before the database can be used.
pub(super) enum Plan {
    Nothing,
    Create,
    Upgrade { from: i64 },
}

impl Plan {
    /// Returns whether the schema is older. Fails if the database is empty.
    pub(super) fn upgrades(self) -> Result<bool, OpenError> {
        match self {
            Self::Create => Err(OpenError::Empty),
            Self::Nothing => Ok(false),
            Self::Upgrade { .. } => Ok(true),
        }
    }

    /// Returns the plan if `changes` allow it.
    pub(super) fn allowed(self, changes: Changes) -> Result<Self, OpenError> {
        match self {
            Self::Create if !changes.create => Err(OpenError::Empty),
            Self::Upgrade { .. } if !changes.migrate => Err(OpenError::NotMigrated),
            _ => Ok(self),
        }
    }
}

/// Accepts a schema with unknown migrations if `migrator` knows its `readable_from`: the version
/// before an upgrade can then keep running after it.
pub(super) fn newer(migrator: &Migrator, readable_from: Option<i64>) -> Result<Plan, OpenError> {
    let known = migrator.iter().map(|m| m.version).max();
    // A schema without `readable_from` is not compatible.
    match readable_from {
        Some(number) if Some(number) <= known => {
            tracing::warn!(
                event = "database.schema_newer",
                "a newer Octopus upgraded the database; this version can still use it"
            );
            Ok(Plan::Nothing)
        }
        _ => Err(OpenError::Newer),
    }
}

/// Plans the migration of a database that has `tables`, from its applied migrations.
pub(super) async fn plan<C: Migrate>(
    migrator: &Migrator,
    connection: &mut C,
    tables: &[String],
) -> Result<Plan, OpenError> {
    let has = |name: &str| tables.iter().any(|table| table == name);
    if !has(&migrator.table_name) {
        return match () {
            () if tables.is_empty() => Ok(Plan::Create),
            () if has("api_keys") || has("conversations") => Err(OpenError::FastApiDatabase),
            () => Err(OpenError::ForeignTables(tables.join(", "))),
        };
    }
    let applied = connection.list_applied_migrations(&migrator.table_name).await?;
    let differs = |m: &&AppliedMigration| {
        migrator.iter().any(|known| known.version == m.version && known.checksum != m.checksum)
    };
    if let Some(other) = applied.iter().find(differs) {
        return Err(OpenError::OtherMigration(other.version));
    }
    if applied.iter().any(|m| !migrator.version_exists(m.version)) {
        let lacks = |number: i64| applied.iter().all(|m| m.version != number);
        let missing = migrator.iter().map(|m| m.version).find(|number| lacks(*number));
        return Err(missing.map_or(OpenError::Newer, OpenError::OtherMigration));
    }
    let latest = applied.iter().map(|m| m.version).max();
    let pending = migrator.iter().any(|m| Some(m.version) > latest);
    Ok(match latest {
        None => Plan::Create,
        Some(from) if pending => Plan::Upgrade { from },
        Some(_) => Plan::Nothing,
    })
}
