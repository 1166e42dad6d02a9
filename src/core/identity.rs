//! Usernames and emails: their stored form and their comparison keys.
//!
//! Usernames follow the profiles UsernameCasePreserved (stored) and UsernameCaseMapped (compared)
//! of RFC 8265, with the mixed-script restriction and the skeletons of UTS 39. Email domains follow
//! UTS 46. Names that were stored before these rules applied keep their text; [`username_key`] and
//! [`email_key`] therefore accept any text.

use super::text::folded;
use email_address::{EmailAddress, Options};
use precis_profiles::UsernameCasePreserved;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use precis_profiles::precis_core::{DerivedPropertyValue, Error, FreeformClass, StringClass};
use unicode_normalization::UnicodeNormalization;
use unicode_security::{MixedScript, RestrictionLevel, RestrictionLevelDetection};

/// Maximum length of a username in characters.
pub const MAX_USERNAME: usize = 100;
/// Maximum length of an email in bytes: RFC 5321, section 4.5.3.1.3, without the angle brackets.
pub const MAX_EMAIL: usize = 254;
/// Maximum length of an email in bytes before normalization. Decomposed letters and Unicode domains
/// are longer than their stored form.
const MAX_SENT_EMAIL: usize = 4 * MAX_EMAIL;

/// Why a text is not a valid username. The message completes "a username …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsernameProblem {
    /// The text is empty or has more than [`MAX_USERNAME`] characters.
    #[error("must have from 1 to {MAX_USERNAME} characters")]
    Length,
    /// A username with `@` could be confused with an email.
    #[error("must not contain '@'")]
    At,
    /// PRECIS does not allow spaces.
    #[error("must not contain spaces")]
    Space,
    /// PRECIS does not allow this character, or not at this position.
    #[error("must not contain U+{:04X} at this position", u32::from(*.0))]
    Character(char),
    /// PRECIS does not allow the text as a whole.
    #[error("must not mix writing directions or break another rule of RFC 8265")]
    Form,
    /// The letters belong to scripts that UTS 39 does not allow together.
    #[error("must not mix letters of different scripts, such as Latin and Cyrillic")]
    MixedScripts,
}

/// Returns the stored form of a new username: width-mapped, composed (NFC), with its case
/// preserved.
pub fn username(text: &str) -> Result<String, UsernameProblem> {
    let has_length = |text: &str| (1..=MAX_USERNAME).contains(&text.chars().count());
    if !has_length(text) {
        return Err(UsernameProblem::Length);
    }
    let stored = enforce(text)?;
    if !has_length(&stored) {
        return Err(UsernameProblem::Length);
    }
    // Check this after normalization, which converts U+FF20 to `@`.
    if stored.contains('@') {
        return Err(UsernameProblem::At);
    }
    // The level of a rare script is Unrestricted even if the text has no other script: allow that.
    let level = stored.as_str().detect_restriction_level();
    if level > RestrictionLevel::HighlyRestrictive && !stored.as_str().is_single_script() {
        return Err(UsernameProblem::MixedScripts);
    }
    Ok(stored)
}

/// Returns the comparison key of a username. Usernames with equal keys are the same. Accepts any
/// text.
pub fn username_key(text: &str) -> String {
    if text.chars().count() > MAX_USERNAME {
        return folded(text);
    }
    enforce(text).map_or_else(|_| fallback_key(text), |stored| nfc(&folded(&stored)))
}

/// Returns the UTS 39 skeleton of the key of a username. Usernames that look alike share a
/// skeleton.
pub fn skeleton(text: &str) -> String {
    unicode_security::skeleton(&username_key(text)).collect()
}

/// Returns the skeletons that a new username must not share with another: that of its key, and that
/// of the displayed text, because upper-case letters may look alike where lower-case letters do
/// not.
pub fn skeletons(stored: &str) -> [String; 2] {
    let displayed: String = unicode_security::skeleton(stored).collect();
    [skeleton(stored), folded(&displayed)]
}

/// Returns the stored form of a new email: trimmed, with its domain in ASCII. `None` if `text` is
/// not a valid email.
pub fn email(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > MAX_SENT_EMAIL {
        return None;
    }
    let (local, domain) = text.rsplit_once('@')?;
    let local = if local.is_ascii() { local.to_owned() } else { enforce(local).ok()? };
    let domain = idna::domain_to_ascii_strict(domain).ok()?;
    Some(format!("{local}@{domain}")).filter(|stored| is_email(stored))
}

/// Returns the comparison key of an email. Emails with equal keys are the same. Accepts any text.
pub fn email_key(text: &str) -> String {
    email(text).map_or_else(|| fallback_key(text.trim()), |stored| nfc(&folded(&stored)))
}

/// Returns whether `text` has the syntax of an email and at most [`MAX_EMAIL`] bytes.
pub fn is_email(text: &str) -> bool {
    let options =
        Options::default().with_required_tld().without_display_text().without_domain_literal();
    text.len() <= MAX_EMAIL && EmailAddress::parse_with_options(text, options).is_ok()
}

/// Returns whether PRECIS disallows `character` at every position: control and invisible
/// characters.
pub fn is_forbidden(character: char) -> bool {
    let property = FreeformClass::default().get_value_from_char(character);
    property == DerivedPropertyValue::Disallowed
}

/// Applies the profile UsernameCasePreserved to `text`.
fn enforce(text: &str) -> Result<String, UsernameProblem> {
    UsernameCasePreserved::enforce(text).map(String::from).map_err(|error| match error {
        Error::BadCodepoint(info) => match char::from_u32(info.cp) {
            Some(space) if space.is_whitespace() && !space.is_control() => UsernameProblem::Space,
            Some(character) => UsernameProblem::Character(character),
            None => UsernameProblem::Form,
        },
        _ => UsernameProblem::Form,
    })
}

/// Returns the comparison key of a text that the current rules reject: without invisible
/// characters.
fn fallback_key(text: &str) -> String {
    let shown: String = text.chars().filter(|character| !is_forbidden(*character)).collect();
    folded(&shown.nfkc().collect::<String>()).nfkc().collect()
}

fn nfc(text: &str) -> String {
    text.nfc().collect()
}
