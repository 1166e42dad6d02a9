//! The scopes of API keys.

use serde::{Serialize, Serializer};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// Declares [`Scope`] from two tables: resources with a scope to read and one to write them, which
/// `read` and `write` include; and scopes that only `admin` includes.
macro_rules! scopes {
    (
        resources { $($resource:literal => $read:ident, $write:ident;)+ }
        admin_only { $($(#[$doc:meta])+ $name:literal => $only:ident;)+ }
    ) => {
        /// A permission that an API key can have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Scope {
            /// Every operation.
            Admin,
            /// All of `*:read`, except scopes that only `admin` includes.
            Read,
            /// All of `*:write`.
            Write,
            $(
                #[doc = concat!("Read ", $resource, " and what belongs to them.")]
                $read,
                #[doc = concat!("Create, change and delete ", $resource, " and what belongs to them.")]
                $write,
            )+
            $($(#[$doc])+ $only,)+
        }

        /// Number of scopes.
        const COUNT: usize = 3 + [$($resource, $resource,)+ $($name,)+].len();

        impl Scope {
            /// All scopes, in the order in which responses list them.
            pub const ALL: [Self; COUNT] = [
                Self::Admin,
                Self::Read,
                Self::Write,
                $(Self::$read, Self::$write,)+
                $(Self::$only,)+
            ];

            /// The name of the scope in requests and responses.
            pub fn as_str(self) -> &'static str {
                match self {
                    Self::Admin => "admin",
                    Self::Read => "read",
                    Self::Write => "write",
                    $(
                        Self::$read => concat!($resource, ":read"),
                        Self::$write => concat!($resource, ":write"),
                    )+
                    $(Self::$only => $name,)+
                }
            }

            /// The narrowest of `admin`, `read` and `write` that includes this scope.
            fn broad(self) -> Self {
                match self {
                    Self::Admin $(| Self::$only)+ => Self::Admin,
                    Self::Read $(| Self::$read)+ => Self::Read,
                    Self::Write $(| Self::$write)+ => Self::Write,
                }
            }

            /// Returns whether only `admin` includes this scope.
            #[must_use]
            pub fn is_admin_only(self) -> bool {
                self != Self::Admin && self.broad() == Self::Admin
            }

            /// The scope that reads the resources this scope writes; `None` if this is not a write
            /// scope.
            pub fn matching_read(self) -> Option<Self> {
                match self {
                    Self::Write => Some(Self::Read),
                    $(Self::$write => Some(Self::$read),)+
                    Self::Admin | Self::Read $(| Self::$read)+ $(| Self::$only)+ => None,
                }
            }
        }
    };
}

scopes! {
    resources {
        "conversations" => ConversationsRead, ConversationsWrite;
        "users" => UsersRead, UsersWrite;
        "items" => ItemsRead, ItemsWrite;
    }
    admin_only {
        /// Read and verify the audit log. `read` does not include it: the audit log contains the
        /// actor and the address of every change.
        "audit:read" => AuditRead;
        /// Verify an API key for another service.
        "keys:verify" => KeysVerify;
    }
}

// `Scopes` has one bit for each scope.
const _: () = assert!(COUNT <= 8 * size_of::<Scopes>());

impl Scope {
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The name of the broad scope, capitalized for the start of a sentence: `Read` for `users:read`.
impl Display for Scope {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.broad())
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let scope = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        scope.ok_or_else(|| UnknownScope::Word(text.to_owned()))
    }
}

/// "did you mean '…'? Use" with the scope that `word` resembles, or "use".
fn remedy(word: &str) -> String {
    const MIN_SIMILARITY: f64 = 0.8;
    // Longer words have no scope that is similar.
    if word.len() > 40 {
        return "use".to_owned();
    }
    let similarity = |scope: &str| strsim::jaro(word, scope);
    let scopes = Scope::ALL.map(Scope::as_str).into_iter();
    let best = scopes.max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    let best = best.filter(|scope| similarity(scope) >= MIN_SIMILARITY);
    best.map_or("use".to_owned(), |scope| format!("did you mean '{scope}'? Use"))
}

/// A set of scopes, written with commas in the order of [`Scope::ALL`]: `admin,read,write`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes(u32);

/// An error in the text of a set of scopes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownScope {
    /// The word is not a scope.
    #[error(
        "unknown scope '{0}': {remedy} {names}, separated by commas",
        remedy = remedy(.0),
        names = Scope::ALL.map(Scope::as_str).join(", ")
    )]
    Word(String),
    /// The text has no scope.
    #[error(
        "at least one scope is required: use {names}, separated by commas",
        names = Scope::ALL.map(Scope::as_str).join(", ")
    )]
    None,
}

impl Scopes {
    /// The default of a new API key.
    pub const READ: Self = Self(Scope::Read.bit());
    /// No scope.
    pub(super) const NONE: Self = Self(0);
    /// Every scope, written as the three broad scopes.
    pub const ALL: Self = Self(Scope::Admin.bit() | Scope::Read.bit() | Scope::Write.bit());

    /// Returns whether the set contains or implies `scope`. `admin` implies every scope; `read`
    /// implies `*:read` except `audit:read`; `write` implies `*:write`. `write` does not imply
    /// `read`.
    pub fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | scope.broad().bit() | Scope::Admin.bit()) != 0
    }

    /// Returns whether the set contains or implies each of `others`.
    pub fn include(self, others: Self) -> bool {
        Scope::ALL.into_iter().all(|scope| others.0 & scope.bit() == 0 || self.allow(scope))
    }

    /// Returns whether the set contains `admin`.
    pub fn is_admin(self) -> bool {
        self.0 & Scope::Admin.bit() != 0
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let mut bits = 0;
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            bits |= word.parse::<Scope>()?.bit();
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
    fn scopes_are_parsed_in_any_order_and_formatted_in_one() {
        for text in ["write,admin,read", " read , write,admin ", "read,read,write,,admin"] {
            assert_eq!(text.parse::<Scopes>().unwrap().to_string(), "admin,read,write");
        }
    }

    #[test]
    fn an_unknown_scope_is_reported_with_the_one_that_it_resembles() {
        let remedy = |word: &str| {
            let error = word.parse::<Scope>().unwrap_err().to_string();
            error.split_once(": ").unwrap().1.split_once(" admin,").unwrap().0.to_owned()
        };
        assert_eq!(remedy("raed"), "did you mean 'read'? Use");
        assert_eq!(remedy("Admin"), "did you mean 'admin'? Use");
        assert_eq!(remedy("conversation:read"), "did you mean 'conversations:read'? Use");
        for word in ["root", "x", &"read".repeat(200)] {
            assert_eq!(remedy(word), "use", "{word}");
        }
    }

    #[test]
    fn an_unknown_or_missing_scope_is_an_error() {
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
        assert!(scopes("read,users:write").include(scopes("conversations:read,users:write")));
        assert!(!scopes("read,users:write").include(scopes("read,write")));
        assert!(scopes("admin").include(Scopes::ALL) && !scopes("read,write").include(Scopes::ALL));
    }

    #[test]
    fn a_broad_scope_implies_its_narrow_scopes_and_a_narrow_scope_implies_no_other() {
        let narrow: Vec<Scope> = Scope::ALL[3..].to_vec();
        for scope in &narrow {
            let name = scope.as_str();
            for (broad, end) in [("read", ":read"), ("write", ":write")] {
                let held: Scopes = broad.parse().unwrap();
                let is_part = name.ends_with(end) && *scope != Scope::AuditRead;
                assert_eq!(held.allow(*scope), is_part, "{broad} for {name}");
            }
            let held: Scopes = name.parse().unwrap();
            for other in Scope::ALL {
                assert_eq!(held.allow(other), other == *scope, "{name} for {other:?}");
            }
            assert_eq!(held.to_string(), name);
        }
    }
}
