//! Audit entries: the caller, the action and the subject of an operation.

use crate::http::RequestId;
use crate::security::{Access, Actor, SignedIn};
use std::net::IpAddr;
use std::sync::Arc;

/// The caller of an operation, its client address and its request.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The kind of caller.
    pub by: PerformedBy,
    /// The client address; `None` for the server and the host.
    pub ip: Option<IpAddr>,
    /// The id of the request; `None` for the server and the host.
    pub request_id: Option<RequestId>,
}

/// The kind of caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PerformedBy {
    /// An API key.
    Key {
        /// Its id.
        id: i64,
        /// Its name at the time.
        name: Arc<str>,
    },
    /// A signed-in user; the details name it.
    User,
    /// A caller without credentials.
    Anonymous,
    /// An operator on the server's command line.
    Host,
    /// The server itself.
    Server,
}

impl Origin {
    /// The server itself.
    pub const SERVER: Self = Self { by: PerformedBy::Server, ip: None, request_id: None };
    /// An operator on the server's command line.
    pub const HOST: Self = Self { by: PerformedBy::Host, ip: None, request_id: None };

    /// The origin if `access` belongs to an API key; `None` for a user.
    pub fn of_key(access: &Access) -> Option<Self> {
        match access {
            Access::Key(actor) => Some(actor.into()),
            Access::User(_) => None,
        }
    }

    /// The id of the API key, if the caller used one.
    pub fn key_id(&self) -> Option<i64> {
        match self.by {
            PerformedBy::Key { id, .. } => Some(id),
            _ => None,
        }
    }
}

impl From<&Actor> for Origin {
    fn from(actor: &Actor) -> Self {
        let by = PerformedBy::Key { id: actor.key_id(), name: actor.key_name() };
        Self { by, ip: Some(actor.ip()), request_id: Some(actor.request_id().clone()) }
    }
}

impl From<&SignedIn> for Origin {
    fn from(user: &SignedIn) -> Self {
        let request_id = Some(user.request_id().clone());
        Self { by: PerformedBy::User, ip: Some(user.ip()), request_id }
    }
}

impl PerformedBy {
    /// The value in the database and the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Key { .. } => "key",
            Self::User => "user",
            Self::Anonymous => "anonymous",
            Self::Host => "host",
            Self::Server => "server",
        }
    }
}

/// The subject of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'n> {
    /// An API key: id and name. The name keeps the entry readable after the key is deleted.
    Key(i64, &'n str),
    /// A user; the details name it.
    User,
    /// The installation itself.
    Installation,
}

/// The actions in the audit log: on API keys, on users and their data, and on the audit log itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The first API key was created, by `/bootstrap`, `MASTER_API_KEY` or the command line.
    Bootstrap,
    /// An API key was created.
    Create,
    /// The properties of a key were changed.
    Update,
    /// A key was deactivated.
    Deactivate,
    /// A key was deleted.
    Delete,
    /// A key was replaced by a new one.
    Rotate,
    /// A key was deactivated at its expiry.
    Expire,
    /// A user's password, email or status was changed.
    UpdateUser,
    /// A user was deleted.
    DeleteUser,
    /// A password reset token was issued.
    IssuePasswordReset,
    /// A password reset token was used.
    ResetPassword,
    /// Credentials were refused; the details count them.
    AuthFailed,
    /// Entries older than the chain were added to it, unchanged.
    AdoptEntries,
    /// Old entries were removed by retention; the details say which.
    PruneEntries,
    /// A key of the FastAPI app was imported; or a whole database, with its row counts.
    Import,
    /// An entry of the FastAPI app's audit log was imported whose action is none of these. Other
    /// imported entries have their own actions, and `original` in the details.
    ImportEntry,
    /// The audit log continues with another `AUDIT_KEY`, which signs this entry.
    ChangeAuditKey,
    /// A user was registered by a key; self-registrations are counted by client address.
    Register,
    /// A user signed in; the details count the sign-ins from one address.
    SignIn,
    /// A key edited a user's message.
    EditMessage,
    /// A key deleted the content of a user's message.
    DeleteMessage,
    /// A key deleted a conversation.
    DeleteConversation,
    /// A key exported a conversation, or a user with all its conversations.
    Export,
    /// A key imported a conversation.
    ImportConversation,
}

impl Action {
    /// All actions, for filters.
    pub const ALL: [Self; 24] = [
        Self::Bootstrap,
        Self::Create,
        Self::Update,
        Self::Deactivate,
        Self::Delete,
        Self::Rotate,
        Self::Expire,
        Self::UpdateUser,
        Self::DeleteUser,
        Self::IssuePasswordReset,
        Self::ResetPassword,
        Self::AuthFailed,
        Self::AdoptEntries,
        Self::PruneEntries,
        Self::Import,
        Self::ImportEntry,
        Self::ChangeAuditKey,
        Self::Register,
        Self::SignIn,
        Self::EditMessage,
        Self::DeleteMessage,
        Self::DeleteConversation,
        Self::Export,
        Self::ImportConversation,
    ];

    /// The value in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Create => "create",
            Self::Update => "update",
            Self::Deactivate => "deactivate",
            Self::Delete => "delete",
            Self::Rotate => "rotate",
            Self::Expire => "expire",
            Self::UpdateUser => "update_user",
            Self::DeleteUser => "delete_user",
            Self::IssuePasswordReset => "issue_password_reset",
            Self::ResetPassword => "reset_password",
            Self::AuthFailed => "auth_failed",
            Self::AdoptEntries => "adopt_trail",
            Self::PruneEntries => "prune_trail",
            Self::Import => "import",
            Self::ImportEntry => "import_trail",
            Self::ChangeAuditKey => "change_audit_key",
            Self::Register => "register",
            Self::SignIn => "sign_in",
            Self::EditMessage => "edit_message",
            Self::DeleteMessage => "delete_message",
            Self::DeleteConversation => "delete_conversation",
            Self::Export => "export",
            Self::ImportConversation => "import_conversation",
        }
    }

    /// Returns whether the action creates, changes or deletes the API key that is its subject.
    pub(super) fn changes_a_key(self) -> bool {
        matches!(
            self,
            Self::Bootstrap
                | Self::Create
                | Self::Update
                | Self::Deactivate
                | Self::Delete
                | Self::Rotate
                | Self::Expire
                | Self::Import
        )
    }
}
