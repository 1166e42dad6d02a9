//! Usernames and emails: the form in which they are stored, and the keys by which they are compared.
//!
//! Usernames follow the profiles UsernameCasePreserved (stored) and UsernameCaseMapped (compared) of
//! RFC 8265, with the mixed-script restriction and the skeletons of UTS 39. Domains of emails follow
//! UTS 46. Names that were stored before these rules keep their text; [`username_key`] and
//! [`email_key`] therefore accept any text.

use super::text::folded;
use email_address::{EmailAddress, Options};
use precis_profiles::UsernameCasePreserved;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use precis_profiles::precis_core::{DerivedPropertyValue, Error, FreeformClass, StringClass};
use unicode_normalization::UnicodeNormalization;
use unicode_security::{MixedScript, RestrictionLevel, RestrictionLevelDetection};

/// Most characters of a username.
pub const MAX_USERNAME: usize = 100;
/// Most bytes of an email: RFC 5321, section 4.5.3.1.3, less the angle brackets.
pub const MAX_EMAIL: usize = 254;
/// Most bytes of an email as it is sent: decomposed letters and their form of a domain take more.
const MAX_SENT_EMAIL: usize = 4 * MAX_EMAIL;

/// Why a text cannot be a username. Completes "a username …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsernameProblem {
    /// It has none or too many characters.
    #[error("must have from 1 to {MAX_USERNAME} characters")]
    Length,
    /// An email would be taken for it.
    #[error("must not contain '@'")]
    At,
    /// PRECIS does not allow spaces.
    #[error("must not contain spaces")]
    Space,
    /// PRECIS does not allow this character, or not in this place.
    #[error("must not contain U+{:04X} there", u32::from(*.0))]
    Character(char),
    /// PRECIS does not allow the text as a whole.
    #[error("must not mix directions of writing or break another rule of RFC 8265")]
    Form,
    /// Its letters are of scripts that are not written together.
    #[error("must not mix letters of different scripts, such as Latin and Cyrillic")]
    MixedScripts,
}

/// The form in which a new username is stored: letters of normal width, composed (NFC), their case
/// kept.
pub fn username(text: &str) -> Result<String, UsernameProblem> {
    let has_length = |text: &str| (1..=MAX_USERNAME).contains(&text.chars().count());
    if !has_length(text) {
        return Err(UsernameProblem::Length);
    }
    let stored = enforced(text)?;
    if !has_length(&stored) {
        return Err(UsernameProblem::Length);
    }
    // Not before: U+FF20 becomes an @.
    if stored.contains('@') {
        return Err(UsernameProblem::At);
    }
    // The level is Unrestricted for rare scripts, too, which are fine alone.
    let level = stored.as_str().detect_restriction_level();
    if level > RestrictionLevel::HighlyRestrictive && !stored.as_str().is_single_script() {
        return Err(UsernameProblem::MixedScripts);
    }
    Ok(stored)
}

/// What usernames are compared by: equal keys are the same name. Any text has one.
pub fn username_key(text: &str) -> String {
    if text.chars().count() > MAX_USERNAME {
        return folded(text);
    }
    enforced(text).map_or_else(|_| visible(text), |stored| composed(&folded(&stored)))
}

/// What look-alikes of a username have in common: the skeleton of UTS 39 of its key.
pub fn skeleton(text: &str) -> String {
    unicode_security::skeleton(&username_key(text)).collect()
}

/// The skeletons by which a new username may be taken for another: that of its key, and that of its
/// text as it is displayed, as capital letters may look alike where small ones do not.
pub fn skeletons(stored: &str) -> [String; 2] {
    let displayed: String = unicode_security::skeleton(stored).collect();
    [skeleton(stored), folded(&displayed)]
}

/// The form in which a new email is stored: trimmed, its domain in ASCII. `None` where `text` is no
/// email.
pub fn email(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > MAX_SENT_EMAIL {
        return None;
    }
    let (local, domain) = text.rsplit_once('@')?;
    let local = if local.is_ascii() { local.to_owned() } else { enforced(local).ok()? };
    let domain = idna::domain_to_ascii_strict(domain).ok()?;
    Some(format!("{local}@{domain}")).filter(|stored| is_email(stored))
}

/// What emails are compared by: equal keys are the same email. Any text has one.
pub fn email_key(text: &str) -> String {
    email(text).map_or_else(|| visible(text.trim()), |stored| composed(&folded(&stored)))
}

/// Whether `text` has the form of an email.
pub fn is_email(text: &str) -> bool {
    let options =
        Options::default().with_required_tld().without_display_text().without_domain_literal();
    text.len() <= MAX_EMAIL && EmailAddress::parse_with_options(text, options).is_ok()
}

/// Whether PRECIS forbids `character` everywhere: control characters and invisible ones.
pub fn is_forbidden(character: char) -> bool {
    let property = FreeformClass::default().get_value_from_char(character);
    property == DerivedPropertyValue::Disallowed
}

/// `text` by UsernameCasePreserved.
fn enforced(text: &str) -> Result<String, UsernameProblem> {
    UsernameCasePreserved::enforce(text).map(String::from).map_err(|error| match error {
        Error::BadCodepoint(info) => match char::from_u32(info.cp) {
            Some(space) if space.is_whitespace() && !space.is_control() => UsernameProblem::Space,
            Some(character) => UsernameProblem::Character(character),
            None => UsernameProblem::Form,
        },
        _ => UsernameProblem::Form,
    })
}

/// The key of a text that today's rules refuse: without its invisible characters.
fn visible(text: &str) -> String {
    let shown: String = text.chars().filter(|character| !is_forbidden(*character)).collect();
    folded(&shown.nfkc().collect::<String>()).nfkc().collect()
}

fn composed(text: &str) -> String {
    text.nfc().collect()
}
