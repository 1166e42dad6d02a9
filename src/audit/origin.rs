//! Who did something, to what.

use crate::http::RequestId;
use crate::security::{Access, Actor, LoggedIn};
use std::net::IpAddr;
use std::sync::Arc;

/// Who did something, from where, in which request.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Who.
    pub by: PerformedBy,
    /// Where they called from; `None` for the server and the host.
    pub ip: Option<IpAddr>,
    /// In which request.
    pub request_id: Option<RequestId>,
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PerformedBy {
    /// The holder of a key.
    Key {
        /// Its id.
        id: i64,
        /// Its name at the time.
        name: Arc<str>,
    },
    /// Somebody logged in; the details name them.
    User,
    /// A caller without a key.
    Anonymous,
    /// Somebody with the server's command line.
    Host,
    /// The server itself.
    Server,
}

impl Origin {
    /// The server itself.
    pub const SERVER: Self = Self { by: PerformedBy::Server, ip: None, request_id: None };
    /// Somebody with the server's command line.
    pub const HOST: Self = Self { by: PerformedBy::Host, ip: None, request_id: None };

    /// The key, where `access` is that of one.
    pub fn of_key(access: &Access) -> Option<Self> {
        match access {
            Access::Key(actor) => Some(actor.into()),
            Access::User(_) => None,
        }
    }

    /// The id of the key, where it was the holder of one.
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

impl From<&LoggedIn> for Origin {
    fn from(user: &LoggedIn) -> Self {
        let request_id = Some(user.request_id().clone());
        Self { by: PerformedBy::User, ip: Some(user.ip()), request_id }
    }
}

impl PerformedBy {
    /// As it is stored and shown.
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

/// What something was done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'n> {
    /// A key. Its name is kept, so that the row still reads after the key is gone.
    Key(i64, &'n str),
    /// A user; the details name it.
    User,
    /// The installation itself.
    Installation,
}

/// What can be done to a key, a user's rights or the trail itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The first key was made, by `/bootstrap`, `MASTER_API_KEY` or the command line.
    Bootstrap,
    /// A key was made.
    Create,
    /// Its properties were changed.
    Update,
    /// It was switched off.
    Deactivate,
    /// It was removed.
    Delete,
    /// Another took its place.
    Rotate,
    /// It was switched off because its time had come.
    Expire,
    /// A user's password, email or status was changed.
    UpdateUser,
    /// A user was removed.
    DeleteUser,
    /// A token that sets a user's password was given out.
    IssuePasswordReset,
    /// Such a token was spent.
    ResetPassword,
    /// Credentials were refused; the details count them.
    AuthFailed,
    /// Rows from before the chain were taken into it, as they stood.
    AdoptTrail,
    /// Rows from its beginning were removed because they were old; the details say which.
    PruneTrail,
    /// A key of the Python original was taken over, or a database of it, in numbers.
    Import,
    /// A row of its audit log was taken over, as it stood there.
    ImportTrail,
    /// The audit log continues with another `AUDIT_KEY`, which signs this entry.
    ChangeAuditKey,
    /// A user was registered: by a key, or counted by client address.
    Register,
    /// A user signed in; the details count how often from one address.
    SignIn,
    /// A key changed a message that a user had written.
    EditMessage,
    /// A key deleted what such a message said.
    DeleteMessage,
    /// A key deleted a conversation.
    DeleteConversation,
    /// A key exported a conversation, or a user with all of theirs.
    Export,
    /// A key imported a conversation.
    ImportConversation,
}

impl Action {
    /// Every one, for those who filter by it.
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
        Self::AdoptTrail,
        Self::PruneTrail,
        Self::Import,
        Self::ImportTrail,
        Self::ChangeAuditKey,
        Self::Register,
        Self::SignIn,
        Self::EditMessage,
        Self::DeleteMessage,
        Self::DeleteConversation,
        Self::Export,
        Self::ImportConversation,
    ];

    /// As it is stored and shown.
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
            Self::AdoptTrail => "adopt_trail",
            Self::PruneTrail => "prune_trail",
            Self::Import => "import",
            Self::ImportTrail => "import_trail",
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

    /// Whether it creates, changes or removes the API key that the entry is about.
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
