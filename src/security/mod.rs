//! Who is calling, whether they may, and the secrets they prove it with.

mod actor;
mod address_list;
pub mod authenticate;
pub mod last_used;
pub mod password;
mod permission;
mod scope;
pub mod secret;
pub mod throttle;

pub use actor::{Actor, Caller};
pub use address_list::{AddressList, AddressListError};
pub(crate) use permission::permissions;
pub use permission::{Allowed, AnyKey, Permission};
pub use scope::{Scope, Scopes, UnknownScope};
