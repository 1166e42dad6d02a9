//! Users, and the names they have here.

use super::report::Done;
use super::repository::{self, Namesake, NewUser};
use super::source::UserRow;
use super::values;
use super::{MoveError, Mover};
use crate::core::identity::{MAX_USERNAME, email_key, is_email, skeleton, username_key};
use crate::core::text::folded;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

const TABLE: &str = "users";
/// Nobody gets mail there (RFC 2606).
const NOWHERE: &str = "imported.invalid";

/// Who is who: users of the original by their ids there.
pub type Users = HashMap<i64, Person>;

/// A user here.
#[derive(Clone, Copy, Debug)]
pub struct Person {
    pub id: i64,
    /// When they registered, if that can be read.
    pub since: Option<DateTime<Utc>>,
}

impl Person {
    /// Whether they registered only after `time`: what is older was of somebody else with the same
    /// id. Where one of the two cannot be read, nothing speaks against them.
    pub fn came_after(&self, time: Option<DateTime<Utc>>) -> bool {
        self.since.zip(time).is_some_and(|(since, time)| time < since)
    }
}

impl Mover<'_> {
    pub(super) async fn take_users(&mut self) -> Result<(), MoveError> {
        let found = self.source.count(TABLE).await?.unsigned_abs();
        self.count(TABLE).found = found;
        self.begin("users", Some(found));
        let mut after = i64::MIN;
        loop {
            let page = self.source.users(after).await?;
            let Some(last) = page.last().map(|row| row.id) else { return Ok(()) };
            self.progress.advance(page.len() as u64);
            for row in page {
                self.take_user(row).await?;
            }
            after = last;
        }
    }

    async fn take_user(&mut self, user: UserRow) -> Result<(), MoveError> {
        let row = (TABLE, user.id);
        let since = self.since(row, &[&user.created_at, &user.updated_at])?;
        let registered = user.created_at.as_deref().and_then(values::time);
        let substitute = substitute(&user);
        let email = values::text(user.email.unwrap_or_default()).0;
        let username = values::text(user.username.unwrap_or_default()).0;
        let mended = mended_name(&username, user.id);
        let keys = (folded(&email), folded(&mended));
        let others =
            repository::namesakes(&mut self.tx, [&keys.0, &folded(&substitute)], &keys.1).await?;
        // Only who was here before can be the same one, taken over earlier.
        let floor = self.ids.users.floor;
        let same = |called: &dyn Fn(&Namesake) -> bool| {
            others.iter().find(|one| one.id <= floor && one.created_at == since && called(one))
        };
        let known = same(&|one| one.email_key == substitute)
            .or_else(|| same(&|one| one.email_key == keys.0))
            .or_else(|| same(&|one| one.username_key == keys.1));
        if let Some(known) = known {
            self.users.insert(user.id, Person { id: known.id, since: registered });
            self.count(TABLE).here += 1;
            return Ok(());
        }
        if self.secrets.stand_in(&email) || self.secrets.stand_in(&username) {
            let why = "an API key stands in their username or email, which are kept, as people log \
                       in with them: rotate that key";
            self.note(row, "key_inside", Done::Kept, why)?;
        }
        let email = self.email(row, email, substitute, &others)?;
        // Cut to its length, it might show a part of a secret.
        let shown = mended_name(&self.secrets.taken_out(username.clone()), user.id);
        if mended != username {
            let why = format!(
                "a username must be 1 to {MAX_USERNAME} characters without '@', \
                control characters and blanks around it: '{}' is '{}' here",
                self.printable(&username),
                printable(&shown)
            );
            self.note(row, "username_mended", Done::Changed, why)?;
        }
        let username = self.free_username(row, mended, &shown, &others).await?;
        let password_hash = self.password_hash(row, user.hashed_password).await?;
        let is_active = self.is_on(row, "is_active", user.is_active, true)?;
        let is_superuser = self.is_on(row, "is_superuser", user.is_superuser, false)?;
        let full_name = self.clean_text(row, "full_name", user.full_name)?;
        let updated_at = user.updated_at.as_deref().and_then(values::time).unwrap_or(since);
        let id = self.ids.users.give(user.id);
        self.renumbered(TABLE, user.id, id)?;
        if is_superuser {
            let why = "a superuser of the original: the flag is kept, and gives no right here";
            self.note(row, "superuser", Done::Kept, why)?;
        }
        let new = NewUser {
            id,
            email_key: folded(&email),
            email_canonical: email_key(&email),
            email,
            username_key: folded(&username),
            username_canonical: username_key(&username),
            username_skeleton: skeleton(&username),
            username,
            full_name,
            password_hash,
            is_active,
            is_superuser,
            created_at: since,
            updated_at,
        };
        repository::insert_user(&mut self.tx, &new).await?;
        self.users.insert(user.id, Person { id, since: registered });
        self.count(TABLE).imported += 1;
        Ok(())
    }

    /// The email the user has here: a substitute where it is another's, or none at all.
    fn email(
        &mut self,
        row: (&'static str, i64),
        email: String,
        substitute: String,
        others: &[Namesake],
    ) -> Result<String, MoveError> {
        let key = folded(&email);
        if let Some(other) = others.iter().find(|other| other.email_key == key) {
            let why = format!(
                "the email '{}' is user {}'s here, whatever the case of its letters: it is \
                 '{substitute}' until an administrator changes it",
                self.printable(&email),
                other.id
            );
            self.note(row, "email_taken", Done::Changed, why)?;
            return Ok(substitute);
        }
        if is_email(&email) {
            return Ok(email);
        }
        if email.contains('@') && !email.contains(char::is_control) && email.trim() == email {
            let shown = self.printable(&email);
            let why = format!("'{shown}' would not be taken as an email here; it is kept");
            self.note(row, "email_odd", Done::Kept, why)?;
            return Ok(email);
        }
        let why = format!(
            "'{}' is no email: it is '{substitute}' until an administrator changes it",
            self.printable(&email)
        );
        self.note(row, "email_mended", Done::Changed, why)?;
        Ok(substitute)
    }

    /// `username`, or one like it that nobody has.
    async fn free_username(
        &mut self,
        row: (&'static str, i64),
        username: String,
        shown: &str,
        others: &[Namesake],
    ) -> Result<String, MoveError> {
        let key = folded(&username);
        let Some(other) = others.iter().find(|other| other.username_key == key) else {
            return Ok(username);
        };
        let mut suffix = format!("-{}", row.1);
        let mut n = 1;
        let free = loop {
            let room = MAX_USERNAME - suffix.chars().count();
            let beginning: String = username.chars().take(room).collect();
            let candidate = format!("{}{suffix}", beginning.trim_end());
            if !repository::has_username(&mut self.tx, &folded(&candidate)).await? {
                break candidate;
            }
            n += 1;
            suffix = format!("-{}-{n}", row.1);
        };
        let why = format!(
            "the username '{}' is user {}'s here, whatever the case of its letters: it is '{}'",
            printable(shown),
            other.id,
            if shown == username { free.clone() } else { printable(shown) + &suffix }
        );
        self.note(row, "username_taken", Done::Changed, why)?;
        Ok(free)
    }

    /// The hash of their password, if it is of a kind that can be checked here. Otherwise one that
    /// nobody knows the password of.
    async fn password_hash(
        &mut self,
        row: (&'static str, i64),
        raw: Option<Vec<u8>>,
    ) -> Result<String, MoveError> {
        let hash = values::text(raw.unwrap_or_default()).0;
        let is_bcrypt = hash.len() == 60
            && ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|kind| hash.starts_with(kind));
        if is_bcrypt || hash.starts_with("$argon2") {
            return Ok(hash);
        }
        let why = "their password's hash is of no kind that can be checked here: they need a \
                   password reset";
        self.note(row, "password_unknown", Done::Changed, why)?;
        Ok(self.app.passwords.nobodys().await?)
    }

    /// A name as a note may show it: without secrets and what a terminal would obey.
    fn printable(&self, name: &str) -> String {
        printable(&self.secrets.taken_out(name.to_owned()))
    }

    /// A flag; what cannot be read is off.
    pub(super) fn is_on(
        &mut self,
        row: (&'static str, i64),
        column: &str,
        raw: Option<Vec<u8>>,
        missing: bool,
    ) -> Result<bool, MoveError> {
        let Some(raw) = raw else { return Ok(missing) };
        if let Some(flag) = values::flag(&raw) {
            return Ok(flag);
        }
        let why = format!("its {column} cannot be read, and counts as off");
        self.note(row, "flag_unreadable", Done::Changed, why)?;
        Ok(false)
    }
}

/// An email for somebody who has none of their own: the same one each time.
fn substitute(user: &UserRow) -> String {
    let mut hasher = Sha256::new_with_prefix(b"octopus-import-user\0");
    hasher.update(user.id.to_be_bytes());
    for raw in [&user.email, &user.created_at] {
        let raw = raw.as_deref().unwrap_or_default();
        hasher.update((raw.len() as u64).to_be_bytes());
        hasher.update(raw);
    }
    let digits = hex::encode(hasher.finalize());
    format!("user-{}@{NOWHERE}", &digits[..16])
}

/// `username` as far as it keeps the rules.
fn mended_name(username: &str, id: i64) -> String {
    let kept = username.replace('@', "_").replace(char::is_control, "");
    let short: String = kept.trim().chars().take(MAX_USERNAME).collect();
    let short = short.trim_end();
    if short.is_empty() { format!("user-{id}") } else { short.to_owned() }
}

/// Without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().take(255).collect::<String>().replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_keep_the_rules_and_what_they_can_of_themselves() {
        for (username, expected) in [
            ("alice", "alice"),
            ("bob@example.com", "bob_example.com"),
            ("  carol\t", "carol"),
            ("d\u{1b}[2Jan", "d[2Jan"),
            ("", "user-7"),
            (" \n ", "user-7"),
        ] {
            assert_eq!(mended_name(username, 7), expected);
        }
        assert_eq!(mended_name(&"é".repeat(200), 7).chars().count(), MAX_USERNAME);
    }
}
