//! Finds users by the names that a request has.

use crate::db::{Tx, query};
use crate::features::conversations::model::{Account, Name};
use chrono::{DateTime, Utc};
use sqlx::Result;
use std::collections::HashMap;

/// A user, their keys of one kind, and when they took the name.
type NamedRow = (i64, String, Option<String>, i64, DateTime<Utc>);

/// The statement for names of one kind, and what is between its two lists.
macro_rules! named {
    ($name:literal) => {
        (
            concat!(
                "SELECT id, ",
                $name,
                "_key, ",
                $name,
                "_canonical, ",
                $name,
                "_duplicate, COALESCE(",
                $name,
                "_since, created_at) FROM users WHERE ",
                $name,
                "_key IN ("
            ),
            concat!(") OR ", $name, "_canonical IN ("),
        )
    };
}

/// The users who have these names, in any spelling: each name that was found, and its user.
pub async fn accounts(
    tx: &mut Tx,
    names: impl IntoIterator<Item = &Name>,
) -> Result<Vec<(Name, Account)>> {
    let is_email = |name: &&Name| matches!(name, Name::Email(_));
    let (emails, usernames): (Vec<&Name>, Vec<&Name>) = names.into_iter().partition(is_email);
    let mut found = accounts_by(tx, named!("email"), &emails).await?;
    found.extend(accounts_by(tx, named!("username"), &usernames).await?);
    Ok(found)
}

async fn accounts_by(
    tx: &mut Tx,
    (select, or): (&'static str, &'static str),
    names: &[&Name],
) -> Result<Vec<(Name, Account)>> {
    if names.is_empty() {
        return Ok(vec![]);
    }
    let mut statement = query(tx, select);
    for (index, name) in names.iter().enumerate() {
        statement = statement.push(if index == 0 { "" } else { ", " }).push_bind(name.folded());
    }
    statement = statement.push(or);
    for (index, name) in names.iter().enumerate() {
        statement = statement.push(if index == 0 { "" } else { ", " }).push_bind(name.canonical());
    }
    let mut rows: Vec<NamedRow> = statement.push(")").all().await?;
    // Of several with a canonical key, the one who had it first comes last, and stays in the map.
    rows.sort_unstable_by_key(|(_, _, _, duplicate, _)| std::cmp::Reverse(*duplicate));
    let account = |row: &NamedRow| Account { id: row.0, since: row.4 };
    let by_folded: HashMap<&str, Account> =
        rows.iter().map(|row| (&*row.1, account(row))).collect();
    let by_key: HashMap<&str, Account> =
        rows.iter().filter_map(|row| Some((row.2.as_deref()?, account(row)))).collect();
    let find = |name: &&Name| {
        let account = by_folded.get(name.folded()).or_else(|| by_key.get(name.canonical()))?;
        Some(((*name).clone(), *account))
    };
    Ok(names.iter().filter_map(find).collect())
}
