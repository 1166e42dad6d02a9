//! Authentication, authorization, rate limits, and the handling of secrets.

mod access;
mod actor;
mod address_list;
pub mod authenticate;
mod bounds;
pub mod credential;
mod key;
pub mod key_cache;
pub mod key_invalidation;
pub mod password;
pub(crate) mod permission;
pub mod rate_limit;
mod repository;
pub mod revalidate;
pub(crate) mod scope;
pub mod secret;
pub mod session;
pub mod session_uses;
pub mod tally;
pub mod ticket;
pub mod usage;

pub use access::{Access, Visibility};
pub use actor::{Actor, Caller};
pub use address_list::{AddressList, AddressListError};
pub use bounds::{Addresses, Bounds};
pub use key::{Denial, Key};
pub(crate) use permission::permissions;
pub use permission::{Allowed, AllowedOrUser, AnyKey, Permission};
pub use rate_limit::{Account, Attempt};
pub use scope::{Scope, Scopes, UnknownScope};
pub use session::{Session, SignedIn};
