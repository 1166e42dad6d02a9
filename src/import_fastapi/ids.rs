//! Assigns ids to imported rows: the original id, which clients know, unless it is or was in use.

use super::source::Source;
use crate::db::{Tx, bulk};
use sqlx::Result;

/// The largest id accepted as an original id. It leaves room for new ids above it.
const LARGEST: i64 = 1_000_000_000_000_000;

/// Ids for one table.
#[derive(Debug, Default)]
pub struct TableIds {
    /// The highest id ever used in the target: all assigned ids are above it.
    pub floor: i64,
    /// The number of rows with a new id.
    pub renumbered: u64,
    /// The highest id that was assigned or that the source refers to.
    last: i64,
}

/// Ids for all tables.
#[derive(Debug)]
pub struct Ids {
    pub users: TableIds,
    pub keys: TableIds,
    pub conversations: TableIds,
    pub messages: TableIds,
}

impl TableIds {
    /// Reads the highest id ever used in `table` and the highest id in the given `columns` of the
    /// source: the id of a row deleted there must not be assigned to another row.
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

    /// Assigns an id to the row with the id `original` in the source.
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

    /// Advances the sequences of the target beyond all ids assigned or referred to by the source.
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
