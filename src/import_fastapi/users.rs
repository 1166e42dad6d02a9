//! Imports users and resolves conflicts of their emails and usernames.

use super::error::ImportError;
use super::importer::{Importer, SourceRow};
use super::report::Done;
use super::repository::{self, ConflictingUser, NewUser};
use super::source::UserRow;
use super::targets::Person;
use super::values;
use crate::core::identity::{MAX_USERNAME, email_key, is_email, skeleton, username_key};
use crate::core::text::folded;
use sha2::{Digest, Sha256};

const TABLE: &str = "users";
/// Domain of substitute emails; mail to it is never delivered (RFC 2606).
const SUBSTITUTE_DOMAIN: &str = "imported.invalid";

impl Importer<'_> {
    pub(super) async fn import_users(&mut self) -> Result<(), ImportError> {
        let found = self.source.count(TABLE).await?.unsigned_abs();
        self.count(TABLE).found = found;
        self.begin("users", Some(found));
        let mut after = i64::MIN;
        loop {
            let page = self.source.users(after).await?;
            let Some(last) = page.last().map(|row| row.id) else { return Ok(()) };
            self.progress.advance(page.len() as u64);
            for row in page {
                self.import_user(row).await?;
            }
            after = last;
        }
    }

    async fn import_user(&mut self, user: UserRow) -> Result<(), ImportError> {
        let row = SourceRow { table: TABLE, id: user.id };
        let since = self.since(row, &[&user.created_at, &user.updated_at])?;
        let registered = user.created_at.as_deref().and_then(values::time);
        let substitute = substitute(&user);
        let email = values::text(user.email.unwrap_or_default()).0;
        let username = values::text(user.username.unwrap_or_default()).0;
        let valid = valid_name(&username, user.id);
        let keys = (folded(&email), folded(&valid));
        let others =
            repository::conflicting_users(&mut self.tx, [&keys.0, &folded(&substitute)], &keys.1)
                .await?;
        // Only a user that existed before this run can be the result of an earlier import.
        let floor = self.ids.users.floor;
        let same = |matches: &dyn Fn(&ConflictingUser) -> bool| {
            others.iter().find(|one| one.id <= floor && one.created_at == since && matches(one))
        };
        let known = same(&|one| one.email_key == substitute)
            .or_else(|| same(&|one| one.email_key == keys.0))
            .or_else(|| same(&|one| one.username_key == keys.1));
        if let Some(known) = known {
            self.users.insert(user.id, Person { id: known.id, since: registered });
            self.count(TABLE).here += 1;
            return Ok(());
        }
        if self.secrets.found_in(&email) || self.secrets.found_in(&username) {
            let why = "the username or email contains an API key; it is kept, as the user signs in \
                       with it: rotate that key";
            self.note(row, "key_inside", Done::Kept, why)?;
        }
        let email = self.email(row, email, substitute, &others)?;
        // Replace secrets before truncation: otherwise part of a secret could remain.
        let shown = valid_name(&self.secrets.redact(username.clone()), user.id);
        if valid != username {
            let why = format!(
                "a username must be 1 to {MAX_USERNAME} characters without '@', \
                control characters and surrounding spaces: '{}' is now '{}'",
                self.printable(&username),
                printable(&shown)
            );
            self.note(row, "username_mended", Done::Changed, why)?;
        }
        let username = self.free_username(row, valid, &shown, &others).await?;
        let password_hash = self.password_hash(row, user.hashed_password).await?;
        let is_active = self.is_on(row, "is_active", user.is_active, true)?;
        let is_superuser = self.is_on(row, "is_superuser", user.is_superuser, false)?;
        let full_name = self.clean_text(row, "full_name", user.full_name)?;
        let updated_at = user.updated_at.as_deref().and_then(|raw| values::past(raw, self.now));
        let id = self.ids.users.give(user.id);
        self.renumbered(TABLE, user.id, id)?;
        if is_superuser {
            let why = "the superuser flag of the FastAPI app is kept, but grants no permissions";
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
            updated_at: updated_at.unwrap_or(since),
        };
        repository::insert_user(&mut self.tx, &new).await?;
        self.users.insert(user.id, Person { id, since: registered });
        self.count(TABLE).imported += 1;
        Ok(())
    }

    /// The email of the user, or the substitute if another user has it or it is invalid.
    fn email(
        &mut self,
        row: SourceRow,
        email: String,
        substitute: String,
        others: &[ConflictingUser],
    ) -> Result<String, ImportError> {
        let key = folded(&email);
        if let Some(other) = others.iter().find(|other| other.email_key == key) {
            let why = format!(
                "the email '{}' is user {}'s (letter case is ignored): it is now '{substitute}' \
                 until an administrator changes it",
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
            let why = format!("'{shown}' is not an email that the API accepts; it is kept");
            self.note(row, "email_odd", Done::Kept, why)?;
            return Ok(email);
        }
        let why = format!(
            "'{}' is not an email: it is now '{substitute}' until an administrator changes it",
            self.printable(&email)
        );
        self.note(row, "email_mended", Done::Changed, why)?;
        Ok(substitute)
    }

    /// `username`, or a variant of it that is free.
    async fn free_username(
        &mut self,
        row: SourceRow,
        username: String,
        shown: &str,
        others: &[ConflictingUser],
    ) -> Result<String, ImportError> {
        let key = folded(&username);
        let Some(other) = others.iter().find(|other| other.username_key == key) else {
            return Ok(username);
        };
        let mut suffix = format!("-{}", row.id);
        let mut n = 1;
        let free = loop {
            let room = MAX_USERNAME - suffix.chars().count();
            let beginning: String = username.chars().take(room).collect();
            let candidate = format!("{}{suffix}", beginning.trim_end());
            if !repository::has_username(&mut self.tx, &folded(&candidate)).await? {
                break candidate;
            }
            n += 1;
            suffix = format!("-{}-{n}", row.id);
        };
        let why = format!(
            "the username '{}' is user {}'s (letter case is ignored): it is now '{}'",
            printable(shown),
            other.id,
            if shown == username { free.clone() } else { printable(shown) + &suffix }
        );
        self.note(row, "username_taken", Done::Changed, why)?;
        Ok(free)
    }

    /// The password hash if it is bcrypt or Argon2, otherwise a hash of an unknown password.
    async fn password_hash(
        &mut self,
        row: SourceRow,
        raw: Option<Vec<u8>>,
    ) -> Result<String, ImportError> {
        let hash = values::text(raw.unwrap_or_default()).0;
        let is_bcrypt = hash.len() == 60
            && ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|kind| hash.starts_with(kind));
        if is_bcrypt || hash.starts_with("$argon2") {
            return Ok(hash);
        }
        let why = "the password hash is neither bcrypt nor Argon2: the user needs a password reset";
        self.note(row, "password_unknown", Done::Changed, why)?;
        Ok(self.app.passwords.dummy_hash().await?)
    }

    /// `name` for a note: without secrets and control characters.
    fn printable(&self, name: &str) -> String {
        printable(&self.secrets.redact(name.to_owned()))
    }

    /// Decodes a flag: `missing` if it is null, false if it is invalid.
    pub(super) fn is_on(
        &mut self,
        row: SourceRow,
        column: &str,
        raw: Option<Vec<u8>>,
        missing: bool,
    ) -> Result<bool, ImportError> {
        let Some(raw) = raw else { return Ok(missing) };
        if let Some(flag) = values::flag(&raw) {
            return Ok(flag);
        }
        let why = format!("its {column} is not a valid flag and is read as false");
        self.note(row, "flag_unreadable", Done::Changed, why)?;
        Ok(false)
    }
}

/// A substitute email, the same in each import.
fn substitute(user: &UserRow) -> String {
    let mut hasher = Sha256::new_with_prefix(b"octopus-import-user\0");
    hasher.update(user.id.to_be_bytes());
    for raw in [&user.email, &user.created_at] {
        let raw = raw.as_deref().unwrap_or_default();
        hasher.update((raw.len() as u64).to_be_bytes());
        hasher.update(raw);
    }
    let digits = hex::encode(hasher.finalize());
    format!("user-{}@{SUBSTITUTE_DOMAIN}", &digits[..16])
}

/// `username`, changed to follow the rules for usernames.
fn valid_name(username: &str, id: i64) -> String {
    let kept = username.replace('@', "_").replace(char::is_control, "");
    let short: String = kept.trim().chars().take(MAX_USERNAME).collect();
    let short = short.trim_end();
    if short.is_empty() { format!("user-{id}") } else { short.to_owned() }
}

/// At most 255 characters of `text`, without control characters, which a terminal would interpret.
fn printable(text: &str) -> String {
    text.chars().take(255).collect::<String>().replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_are_changed_as_little_as_the_rules_require() {
        for (username, expected) in [
            ("alice", "alice"),
            ("bob@example.com", "bob_example.com"),
            ("  carol\t", "carol"),
            ("d\u{1b}[2Jan", "d[2Jan"),
            ("", "user-7"),
            (" \n ", "user-7"),
        ] {
            assert_eq!(valid_name(username, 7), expected);
        }
        assert_eq!(valid_name(&"é".repeat(200), 7).chars().count(), MAX_USERNAME);
    }
}
