//! The kinds of writes.

use super::model::{Entity, Key, KeyRow, User};
use super::writer::{Write, Writer};
use Kind::{
    Activate, CreateConversation, CreateConversationIdempotent, CreateKey, CreateKeyIdempotent,
    Deactivate, DeactivateKey, DeleteConversation, DeleteKey, DeleteMessage, DeleteUser,
    EditMessage, Import, Join, Leave, LogIn, LogOut, Register, Rename, RenameConversation,
    RenameSelf, RotateKey, RotateKeyIdempotent, SendBatch, SendMessage, SendMessageAsUser,
    SendMessageIdempotent, UpdateKey,
};
use reqwest::Method;
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery";
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    CreateKey,
    CreateKeyIdempotent,
    UpdateKey,
    DeactivateKey,
    RotateKey,
    RotateKeyIdempotent,
    DeleteKey,
    Register,
    Rename,
    RenameSelf,
    Deactivate,
    Activate,
    LogIn,
    LogOut,
    DeleteUser,
    CreateConversation,
    CreateConversationIdempotent,
    RenameConversation,
    SendMessage,
    SendMessageIdempotent,
    SendMessageAsUser,
    SendBatch,
    EditMessage,
    DeleteMessage,
    Join,
    Leave,
    DeleteConversation,
    Import,
}

impl Kind {
    /// All kinds, with their weights. Password hashing is slow, so those kinds have low weights.
    pub const ALL: [(Self, u32); 28] = [
        (CreateKey, 5),
        (CreateKeyIdempotent, 3),
        (UpdateKey, 5),
        (DeactivateKey, 2),
        (RotateKey, 3),
        (RotateKeyIdempotent, 2),
        (DeleteKey, 3),
        (Register, 2),
        (Rename, 4),
        (RenameSelf, 4),
        (Deactivate, 2),
        (Activate, 4),
        (LogIn, 2),
        (LogOut, 1),
        (DeleteUser, 1),
        (CreateConversation, 5),
        (CreateConversationIdempotent, 3),
        (RenameConversation, 4),
        (SendMessage, 16),
        (SendMessageIdempotent, 10),
        (SendMessageAsUser, 8),
        (SendBatch, 6),
        (EditMessage, 8),
        (DeleteMessage, 5),
        (Join, 5),
        (Leave, 4),
        (DeleteConversation, 2),
        (Import, 3),
    ];

    /// Whether a retry gets a 409, because the response had a secret that is shown only once.
    pub fn refuses_replay(self) -> bool {
        matches!(self, CreateKeyIdempotent | RotateKeyIdempotent)
    }

    pub fn is_import(self) -> bool {
        self == Import
    }

    /// Adds the ids and secrets of the response to the entities.
    pub fn adopt(self, mut entities: Vec<Entity>, answer: &Value) -> Vec<Entity> {
        let id = |value: &Value| value["id"].as_i64().expect("an id");
        let text = |name: &str| answer[name].as_str().expect(name).to_owned();
        match (self, entities.first_mut()) {
            (
                CreateKey | CreateKeyIdempotent | RotateKey | RotateKeyIdempotent,
                Some(Entity::Key(key)),
            ) => {
                (key.id, key.secret) = (id(answer), text("key"));
            }
            (Register, Some(Entity::User(user))) => user.id = id(answer),
            (LogIn, Some(Entity::User(user))) => user.tokens.push(text("access_token")),
            (
                CreateConversation | CreateConversationIdempotent,
                Some(Entity::Conversation(conversation)),
            ) => conversation.id = id(answer),
            (
                SendMessage | SendMessageIdempotent | SendMessageAsUser,
                Some(Entity::Conversation(conversation)),
            ) => {
                assert_eq!(
                    answer["seq"],
                    conversation.messages.len(),
                    "a number was left out or used twice"
                );
                conversation.messages.last_mut().expect("a message").id = id(answer);
            }
            (SendBatch, Some(Entity::Conversation(conversation))) => {
                let answers = answer.as_array().expect("a list");
                let first = conversation.messages.len() - answers.len();
                conversation.messages[first..]
                    .iter_mut()
                    .zip(answers)
                    .for_each(|(s, answer)| s.id = id(answer));
            }
            // The response does not have the id of the conversation.
            (Import, _) => entities.clear(),
            _ => {}
        }
        entities
    }
}

fn is_key(entity: &Entity) -> bool {
    matches!(entity, Entity::Key(_))
}

fn is_active_key(entity: &Entity) -> bool {
    matches!(entity, Entity::Key(key) if key.rows.last().is_some_and(|row| row.is_active))
}

impl Writer {
    /// A write of this kind, or `None` if the writer has no entity for it.
    pub fn make(&mut self, kind: Kind) -> Option<Write> {
        match kind {
            CreateKey | CreateKeyIdempotent => Some(self.new_key(kind)),
            UpdateKey | DeactivateKey | RotateKey | RotateKeyIdempotent | DeleteKey => {
                self.key(kind)
            }
            Register => Some(self.register()),
            Rename | RenameSelf | Deactivate | Activate | LogIn | LogOut => self.user(kind),
            DeleteUser => self.delete_user(),
            CreateConversation | CreateConversationIdempotent => {
                Some(self.create_conversation(kind))
            }
            Import => Some(self.import()),
            RenameConversation | DeleteConversation => self.conversation(kind),
            Join | Leave => self.participants(kind),
            SendMessage | SendMessageIdempotent | SendMessageAsUser | SendBatch => {
                self.send_messages(kind)
            }
            EditMessage | DeleteMessage => self.message(kind),
        }
    }

    fn new_key(&mut self, kind: Kind) -> Write {
        let (name, scopes, description) = (self.fresh(), "read,write", "new");
        let body = json!({"name": name, "scopes": scopes, "description": description});
        let row = KeyRow {
            scopes: scopes.to_owned(),
            description: description.to_owned(),
            is_active: true,
            is_rotated: false,
        };
        let secret = String::new();
        let key = Key { name, id: 0, secret, rows: vec![row], audit_entries: vec!["create"] };
        let target = (Method::POST, "/api/v1/api-keys".to_owned());
        let write = Write::new(kind, target, &[], vec![Entity::Key(key)]);
        let write = write.key(&self.admin).json(body);
        if kind == CreateKeyIdempotent { write.idempotent(self.fresh(), 1) } else { write }
    }

    fn key(&mut self, kind: Kind) -> Option<Write> {
        let entity = self.take(if kind == DeleteKey { is_key } else { is_active_key })?;
        let Entity::Key(mut key) = entity.clone() else { return None };
        let (path, secret) = (format!("/api/v1/api-keys/{}", key.id), key.secret.clone());
        let ends = if kind == UpdateKey { vec![] } else { vec![secret] };
        let mut write = match kind {
            UpdateKey => {
                key.newest().description = self.fresh();
                key.audit_entries.push("update");
                let body = json!({"description": key.newest().description});
                let after = vec![Entity::Key(key)];
                Write::new(kind, (Method::PATCH, path), &[entity], after).json(body)
            }
            DeactivateKey => {
                key.newest().is_active = false;
                key.audit_entries.push("deactivate");
                let target = (Method::POST, format!("{path}/deactivate"));
                Write::new(kind, target, &[entity], vec![Entity::Key(key)])
            }
            DeleteKey => {
                key.audit_entries.push("delete");
                let mut write = Write::new(kind, (Method::DELETE, path), &[entity], vec![]);
                write.after = key.facts_without_newest();
                write
            }
            _ => {
                let successor = key.newest().clone();
                (key.newest().is_active, key.newest().is_rotated) = (false, true);
                key.rows.push(successor);
                key.audit_entries.extend(["rotate", "create"]);
                let target = (Method::POST, format!("{path}/rotate"));
                let write = Write::new(kind, target, &[entity], vec![Entity::Key(key)]);
                if kind == RotateKeyIdempotent { write.idempotent(self.fresh(), 1) } else { write }
            }
        };
        write.ends = ends;
        Some(write.key(&self.admin))
    }

    fn register(&mut self) -> Write {
        let (name, full_name) = (self.fresh(), "new".to_owned());
        let email = format!("{name}@example.com");
        let body = json!({"email": email, "username": name, "password": PASSWORD,
            "full_name": full_name});
        let user = User {
            name,
            id: 0,
            full_name,
            is_active: true,
            tokens: vec![],
            sessions: 0,
            audit_entries: vec![],
        };
        let target = (Method::POST, "/api/v1/users".to_owned());
        Write::new(Register, target, &[], vec![Entity::User(user)]).json(body)
    }

    fn user(&mut self, kind: Kind) -> Option<Write> {
        let entity = self.take(|entity| match entity {
            Entity::User(user) => match kind {
                Activate => !user.is_active,
                RenameSelf | LogOut => !user.tokens.is_empty(),
                Rename => true,
                _ => user.is_active,
            },
            _ => false,
        })?;
        let Entity::User(mut user) = entity.clone() else { return None };
        let of_user = (Method::PUT, format!("/api/v1/users/{}", user.id));
        let (admin, before) = (self.admin.clone(), [entity]);
        let write = |target, after| Write::new(kind, target, &before, vec![Entity::User(after)]);
        Some(match kind {
            Rename => {
                user.full_name = self.fresh();
                user.audit_entries.push("update_user");
                let body = json!({"full_name": user.full_name});
                write(of_user, user).key(&admin).json(body)
            }
            RenameSelf => {
                user.full_name = self.fresh();
                let (body, token) = (json!({"full_name": user.full_name}), user.tokens[0].clone());
                let me = (Method::PUT, "/api/v1/users/me".to_owned());
                write(me, user).session(&token).json(body)
            }
            Activate | Deactivate => {
                user.is_active = kind == Activate;
                user.audit_entries.push("update_user");
                let body = json!({"is_active": user.is_active});
                let ends = std::mem::take(&mut user.tokens);
                user.sessions = 0;
                let mut write = write(of_user, user).key(&admin).json(body);
                write.ends = ends;
                write
            }
            LogOut => {
                let token = user.tokens.remove(0);
                user.sessions -= 1;
                let target = (Method::POST, "/api/v1/users/logout".to_owned());
                let mut write = write(target, user).session(&token);
                write.ends = vec![token];
                write
            }
            _ => {
                user.sessions += 1;
                let body = json!({"username": user.name, "password": PASSWORD});
                write((Method::POST, "/api/v1/users/login".to_owned()), user).json(body)
            }
        })
    }

    /// Deletes a user, who is removed from all of their conversations.
    fn delete_user(&mut self) -> Option<Write> {
        let entangled = std::mem::take(&mut self.entangled);
        let free =
            |entity: &Entity| matches!(entity, Entity::User(p) if !entangled.contains(&p.name));
        let found = self.take(free);
        self.entangled = entangled;
        let entity = found?;
        let Entity::User(mut user) = entity.clone() else { return None };
        let (mut before, mut after) = (vec![entity], vec![]);
        let knows = |entity: &Entity| {
            matches!(entity, Entity::Conversation(conversation)
                if conversation.names().any(|name| name == user.name))
        };
        while let Some(entity) = self.take(knows) {
            if let Entity::Conversation(mut conversation) = entity.clone() {
                conversation.leave(&user.name);
                conversation.clear_author(&user.name);
                after.push(Entity::Conversation(conversation));
            }
            before.push(entity);
        }
        let target = (Method::DELETE, format!("/api/v1/users/{}", user.id));
        let mut write = Write::new(DeleteUser, target, &before, after);
        user.audit_entries.push("delete_user");
        write.after.extend(user.facts_when_deleted());
        write.ends = user.tokens;
        Some(write.key(&self.admin))
    }
}
