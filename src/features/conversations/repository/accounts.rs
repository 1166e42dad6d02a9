//! Finds users by the usernames and emails in a request.

use crate::core::clock::Timestamp;
use crate::db::{Tx, query};
use crate::features::conversations::model::{LookupName, NameOwner};
use sqlx::Result;
use std::collections::HashMap;

/// User id, folded name, canonical key, its duplicate number, and the time the name was taken.
type NamedRow = (i64, String, Option<String>, i64, Timestamp);

/// The SQL for one kind of name.
struct NameSql {
    /// The text before the list of folded names.
    select: &'static str,
    /// The text between that list and the list of canonical keys.
    or: &'static str,
}

/// The [`NameSql`] for one kind of name.
macro_rules! named {
    ($name:literal) => {
        NameSql {
            select: concat!(
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
            or: concat!(") OR ", $name, "_canonical IN ("),
        }
    };
}

/// Finds the users with these names, in any spelling. Returns each name found with its user.
pub async fn accounts(
    tx: &mut Tx,
    names: impl IntoIterator<Item = &LookupName>,
) -> Result<Vec<(LookupName, NameOwner)>> {
    let is_email = |name: &&LookupName| matches!(name, LookupName::Email(_));
    let (emails, usernames): (Vec<&LookupName>, Vec<&LookupName>) =
        names.into_iter().partition(is_email);
    let mut found = accounts_by(tx, named!("email"), &emails).await?;
    found.extend(accounts_by(tx, named!("username"), &usernames).await?);
    Ok(found)
}

async fn accounts_by(
    tx: &mut Tx,
    sql: NameSql,
    names: &[&LookupName],
) -> Result<Vec<(LookupName, NameOwner)>> {
    if names.is_empty() {
        return Ok(vec![]);
    }
    let mut statement = query(tx, sql.select);
    for (index, name) in names.iter().enumerate() {
        statement = statement.push(if index == 0 { "" } else { ", " }).push_bind(name.folded());
    }
    statement = statement.push(sql.or);
    for (index, name) in names.iter().enumerate() {
        statement = statement.push(if index == 0 { "" } else { ", " }).push_bind(name.canonical());
    }
    let mut rows: Vec<NamedRow> = statement.push(")").all().await?;
    // If several users share a canonical key, the first owner is last, so the map keeps them.
    rows.sort_unstable_by_key(|(_, _, _, duplicate, _)| std::cmp::Reverse(*duplicate));
    let account = |row: &NamedRow| NameOwner { id: row.0, since: row.4.0 };
    let by_folded: HashMap<&str, NameOwner> =
        rows.iter().map(|row| (&*row.1, account(row))).collect();
    let by_key: HashMap<&str, NameOwner> =
        rows.iter().filter_map(|row| Some((row.2.as_deref()?, account(row)))).collect();
    let find = |name: &&LookupName| {
        let account = by_folded.get(name.folded()).or_else(|| by_key.get(name.canonical()))?;
        Some(((*name).clone(), *account))
    };
    Ok(names.iter().filter_map(find).collect())
}
