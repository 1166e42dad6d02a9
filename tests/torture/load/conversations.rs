//! The writes to conversations.

use super::model::{Conversation, Entity};
use super::writer::{Write, Writer};
use super::writes::Kind::{
    self, CreateConversationIdempotent, DeleteConversation, DeleteMessage, Import, Join, SendBatch,
    SendMessage, SendMessageAsUser,
};
use rand::seq::IteratorRandom;
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeMap;

/// Number of messages after which a conversation gets no more.
const LONG: usize = 12;

fn is_conversation(entity: &Entity) -> bool {
    matches!(entity, Entity::Conversation(_))
}

fn is_short_conversation(entity: &Entity) -> bool {
    matches!(entity, Entity::Conversation(conversation) if conversation.messages.len() < LONG)
}

impl Writer {
    /// Two random users at most. They stay among the entities.
    fn some_users(&self) -> BTreeMap<String, i64> {
        let users = self.entities.iter().filter_map(|entity| match entity {
            Entity::User(user) => Some((user.name.clone(), user.id)),
            _ => None,
        });
        users.sample(&mut rand::rng(), 2).into_iter().collect()
    }

    pub(super) fn create_conversation(&mut self, kind: Kind) -> Write {
        let conversation = Conversation::new(self.fresh(), self.some_users());
        let ids: Vec<i64> = conversation.participants.values().copied().collect();
        let body = json!({"title": conversation.title, "participant_ids": ids,
            "metadata": {"name": conversation.name}});
        let target = (Method::POST, "/api/v1/conversations".to_owned());
        let write = Write::new(kind, target, &[], vec![Entity::Conversation(conversation)]);
        let write = write.key(&self.admin).json(body);
        if kind == CreateConversationIdempotent { write.idempotent(self.fresh(), 1) } else { write }
    }

    pub(super) fn import(&mut self) -> Write {
        const AT: &str = "2026-01-31T09:30:00Z";
        let mut conversation = Conversation::new(self.fresh(), self.some_users());
        let users: Vec<_> =
            conversation.participants.keys().map(|name| json!({"username": name})).collect();
        let mut lines = json!({"type": "conversation", "external_id": conversation.name,
            "title": conversation.title, "metadata": {"name": conversation.name}, "created_at": AT,
            "participants": users})
        .to_string();
        for _ in 0..5 {
            let content = self.words();
            let line =
                json!({"type": "message", "role": "user", "content": content, "created_at": AT});
            lines.extend(["\n", &line.to_string()]);
            conversation.append(None, content);
        }
        // An import creates no events.
        conversation.events.clear();
        // The accounts are newer than the messages, which an import refuses by default.
        let path = "/api/v1/conversations/import?attach_newer_accounts=true";
        let target = (Method::POST, path.to_owned());
        let mut write = Write::new(Import, target, &[], vec![Entity::Conversation(conversation)]);
        write.body = Some(("application/x-ndjson", lines + "\n"));
        write.key(&self.admin)
    }

    pub(super) fn conversation(&mut self, kind: Kind) -> Option<Write> {
        let entity = self.take(is_conversation)?;
        let Entity::Conversation(mut conversation) = entity.clone() else { return None };
        let path = format!("/api/v1/conversations/{}", conversation.id);
        let write = if kind == DeleteConversation {
            Write::new(kind, (Method::DELETE, path), &[entity], vec![])
        } else {
            conversation.title = self.fresh();
            conversation.happened("conversation.updated", 1);
            let body = json!({"title": conversation.title});
            Write::new(
                kind,
                (Method::PUT, path),
                &[entity],
                vec![Entity::Conversation(conversation)],
            )
            .json(body)
        };
        Some(write.key(&self.admin))
    }

    pub(super) fn participants(&mut self, kind: Kind) -> Option<Write> {
        let users = self.some_users();
        let joining = |conversation: &Conversation| {
            users.iter().find(|(name, _)| !conversation.participants.contains_key(*name))
        };
        let entity = self.take(|entity| match entity {
            Entity::Conversation(conversation) if kind == Join => joining(conversation).is_some(),
            Entity::Conversation(conversation) => !conversation.participants.is_empty(),
            _ => false,
        })?;
        let Entity::Conversation(mut conversation) = entity.clone() else { return None };
        let path = format!("/api/v1/conversations/{}/participants", conversation.id);
        let write = if kind == Join {
            let (name, id) = joining(&conversation)?;
            conversation.participants.insert(name.clone(), *id);
            conversation.happened("participant.added", 1);
            let after = vec![Entity::Conversation(conversation)];
            Write::new(kind, (Method::POST, path), &[entity], after).json(json!({"user_id": id}))
        } else {
            let (name, id) =
                conversation.participants.first_key_value().map(|(n, id)| (n.clone(), *id))?;
            conversation.leave(&name);
            let target = (Method::DELETE, format!("{path}/{id}"));
            Write::new(kind, target, &[entity], vec![Entity::Conversation(conversation)])
        };
        Some(write.key(&self.admin))
    }

    pub(super) fn send_messages(&mut self, kind: Kind) -> Option<Write> {
        // A signed-in user and their session token.
        let speaker = self.entities.iter().find_map(|entity| match entity {
            Entity::User(user) => Some((user.name.clone(), user.tokens.first()?.clone())),
            _ => None,
        });
        let by_session = kind == SendMessageAsUser;
        let entity = self.take(|entity| match (entity, &speaker) {
            (Entity::Conversation(conversation), Some((name, _))) if by_session => {
                conversation.participants.contains_key(name)
            }
            (entity, _) => !by_session && is_short_conversation(entity),
        })?;
        let Entity::Conversation(mut conversation) = entity.clone() else { return None };
        let author = conversation.participants.iter().choose(&mut rand::rng());
        let author = author.map(|(name, id)| (name.clone(), *id));
        let path = format!("/api/v1/conversations/{}/messages", conversation.id);
        if let Some((name, token)) = speaker.filter(|_| by_session) {
            let content = self.words();
            let body = json!({"role": "user", "content": content});
            conversation.append(Some(name), content);
            let after = vec![Entity::Conversation(conversation)];
            let write = Write::new(kind, (Method::POST, path), &[entity], after);
            return Some(write.session(&token).json(body));
        }
        let together = kind == SendBatch;
        let mut messages = vec![];
        for _ in 0..if together { 3 } else { 1 } {
            let content = self.words();
            let id = author.as_ref().map(|(_, id)| *id);
            messages.push(json!({"role": "user", "content": content, "user_id": id}));
            conversation.append(author.as_ref().map(|(name, _)| name.clone()), content);
        }
        let path = if together { format!("{path}/batch") } else { path };
        let count = messages.len();
        let body = if together { json!({"messages": messages}) } else { messages.swap_remove(0) };
        let write = Write::new(
            kind,
            (Method::POST, path),
            &[entity],
            vec![Entity::Conversation(conversation)],
        );
        let write = write.key(&self.admin).json(body);
        Some(if kind == SendMessage { write } else { write.idempotent(self.fresh(), count) })
    }

    pub(super) fn message(&mut self, kind: Kind) -> Option<Write> {
        let entity = self.take(|entity| {
            matches!(entity, Entity::Conversation(conversation)
                if conversation.messages.iter().any(|message| !message.is_deleted))
        })?;
        let Entity::Conversation(mut conversation) = entity.clone() else { return None };
        let words = self.words();
        let message = conversation.messages.iter_mut().filter(|message| !message.is_deleted);
        let message = message.choose(&mut rand::rng())?;
        let path = format!("/api/v1/conversations/{}/messages/{}", conversation.id, message.id);
        message.version += 1;
        let write = if kind == DeleteMessage {
            message.is_deleted = true;
            message.content.clear();
            conversation.happened("message.deleted", 1);
            Write::new(
                kind,
                (Method::DELETE, path),
                &[entity],
                vec![Entity::Conversation(conversation)],
            )
        } else {
            message.content.clone_from(&words);
            conversation.happened("message.edited", 1);
            let after = vec![Entity::Conversation(conversation)];
            Write::new(kind, (Method::PATCH, path), &[entity], after)
                .json(json!({"content": words}))
        };
        Some(write.key(&self.admin))
    }
}
