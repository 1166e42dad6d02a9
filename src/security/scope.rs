//! What a key may do.

use serde::{Serialize, Serializer};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// One right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Admin,
    /// May GET.
    Read,
    /// May create, change and delete conversations, messages and items, and change users.
    Write,
}

impl Scope {
    /// In the order in which answers list them.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Read, Self::Write];

    /// As clients write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The beginning of a sentence: `Admin`.
impl Display for Scope {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A set of rights; written `admin,read,write`, in that order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes(u8);

/// A text that is no set of scopes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownScope {
    /// A word that is no scope.
    #[error("unknown scope '{0}': use read, write and admin, separated by commas")]
    Word(String),
    /// No word at all.
    #[error("at least one scope is needed: use read, write and admin, separated by commas")]
    None,
}

impl Scopes {
    /// What a key gets when nobody says otherwise.
    pub const READ: Self = Self(1 << Scope::Read as u8);
    /// Every right by its name.
    pub const ALL: Self =
        Self(1 << Scope::Admin as u8 | 1 << Scope::Read as u8 | 1 << Scope::Write as u8);

    /// Whether it is one of them, or implied: `admin` may do everything, `write` does not imply
    /// `read`.
    pub fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    /// Whether `admin` is one of them.
    pub fn is_admin(self) -> bool {
        self.0 & Scope::Admin.bit() != 0
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let mut bits = 0;
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let scope = Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
            bits |= scope.ok_or_else(|| UnknownScope::Word(word.to_owned()))?.bit();
        }
        if bits == 0 { Err(UnknownScope::None) } else { Ok(Self(bits)) }
    }
}

impl Display for Scopes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let held = Scope::ALL.into_iter().filter(|scope| self.0 & scope.bit() != 0);
        let words: Vec<_> = held.map(Scope::as_str).collect();
        f.write_str(&words.join(","))
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_in_any_order_and_written_in_one() {
        for text in ["write,admin,read", " read , write,admin ", "read,read,write,,admin"] {
            assert_eq!(text.parse::<Scopes>().unwrap().to_string(), "admin,read,write");
        }
    }

    #[test]
    fn an_unknown_or_missing_scope_is_named() {
        assert_eq!("read,root".parse::<Scopes>(), Err(UnknownScope::Word("root".into())));
        assert_eq!(" , ".parse::<Scopes>(), Err(UnknownScope::None));
        assert!("Read".parse::<Scopes>().is_err());
    }

    #[test]
    fn write_does_not_imply_read_and_admin_implies_both() {
        let scopes = |text: &str| text.parse::<Scopes>().unwrap();
        assert!(!scopes("write").allow(Scope::Read) && scopes("write").allow(Scope::Write));
        assert!(!scopes("read,write").allow(Scope::Admin));
        assert!(Scope::ALL.into_iter().all(|scope| scopes("admin").allow(scope)));
    }
}
