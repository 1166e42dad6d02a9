//! Which ids rows have here: those of the original, which its clients know, unless they are or were
//! somebody else's.

use super::source::Source;
use crate::db::{Tx, bulk};
use sqlx::Result;

/// A larger one is no id that a database gave: beyond it there must be room.
const LARGEST: i64 = 1_000_000_000_000_000;

/// The ids of one table.
#[derive(Debug, Default)]
pub struct TableIds {
    /// Ids up to this one are used up: all that are given are beyond it.
    pub floor: i64,
    /// How many were given in the place of others.
    pub renumbered: u64,
    /// The highest that was given, or that the original speaks of.
    last: i64,
}

/// The ids of all tables.
#[derive(Debug)]
pub struct Ids {
    pub users: TableIds,
    pub keys: TableIds,
    pub conversations: TableIds,
    pub messages: TableIds,
}

impl TableIds {
    /// Beyond what `table` has had, and beyond `columns` of the original: an id that was somebody's
    /// there must not become another's here.
    async fn new(
        tx: &mut Tx,
        source: &mut Source,
        table: &'static str,
        columns: &[(&'static str, &'static str)],
    ) -> Result<Self> {
        let floor = bulk::highest_id(tx, table).await?;
        let mut last = floor;
        for (table, column) in columns {
            last = last.max(source.highest(table, column, LARGEST).await?);
        }
        Ok(Self { floor, renumbered: 0, last })
    }

    /// The id of the row that had the id `original`.
    pub fn give(&mut self, original: i64) -> i64 {
        if original > self.floor && original <= LARGEST {
            return original;
        }
        self.renumbered += 1;
        self.last += 1;
        self.last
    }
}

impl Ids {
    pub async fn new(tx: &mut Tx, source: &mut Source) -> Result<Self> {
        const USERS: &[(&str, &str)] = &[
            ("users", "id"),
            ("messages", "user_id"),
            ("conversation_participants", "user_id"),
            ("api_keys", "created_by_user_id"),
        ];
        const KEYS: &[(&str, &str)] = &[
            ("api_keys", "id"),
            ("api_key_audit_logs", "api_key_id"),
            ("api_key_audit_logs", "performed_by_key_id"),
        ];
        const CONVERSATIONS: &[(&str, &str)] = &[
            ("conversations", "id"),
            ("messages", "conversation_id"),
            ("conversation_participants", "conversation_id"),
        ];
        const MESSAGES: &[(&str, &str)] = &[("messages", "id")];
        Ok(Self {
            users: TableIds::new(tx, source, "users", USERS).await?,
            keys: TableIds::new(tx, source, "api_keys", KEYS).await?,
            conversations: TableIds::new(tx, source, "conversations", CONVERSATIONS).await?,
            messages: TableIds::new(tx, source, "messages", MESSAGES).await?,
        })
    }

    /// Lets nobody else have the ids that were given, or that the original speaks of.
    pub async fn reserve(&self, tx: &mut Tx) -> Result<()> {
        for (table, ids) in [
            ("users", &self.users),
            ("api_keys", &self.keys),
            ("conversations", &self.conversations),
            ("messages", &self.messages),
        ] {
            if ids.last > 0 {
                bulk::skip_ids(tx, table, ids.last).await?;
            }
        }
        Ok(())
    }
}
