//! Every kind of write to conversations.

use super::things::{Talk, Thing};
use super::writer::{Write, Writer};
use super::writes::Kind::{
    self, BeginTalkOnce, DeleteTalk, Erase, Import, Join, Say, SayAsUser, SayTogether,
};
use rand::seq::IteratorRandom;
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeMap;

/// Messages in a conversation that is still written to.
const LONG: usize = 12;

fn is_talk(thing: &Thing) -> bool {
    matches!(thing, Thing::Talk(_))
}

fn is_short_talk(thing: &Thing) -> bool {
    matches!(thing, Thing::Talk(talk) if talk.said.len() < LONG)
}

impl Writer {
    /// Some people, who stay in its hands.
    fn some_people(&self) -> BTreeMap<String, i64> {
        let people = self.things.iter().filter_map(|thing| match thing {
            Thing::Person(person) => Some((person.name.clone(), person.id)),
            _ => None,
        });
        people.sample(&mut rand::rng(), 2).into_iter().collect()
    }

    pub(super) fn begin_talk(&mut self, kind: Kind) -> Write {
        let talk = Talk::new(self.fresh(), self.some_people());
        let ids: Vec<i64> = talk.people.values().copied().collect();
        let body = json!({"title": talk.title, "participant_ids": ids,
            "metadata": {"name": talk.name}});
        let target = (Method::POST, "/api/v1/conversations".to_owned());
        let write = Write::new(kind, target, &[], vec![Thing::Talk(talk)]);
        let write = write.key(&self.admin).json(body);
        if kind == BeginTalkOnce { write.once(self.fresh(), 1) } else { write }
    }

    pub(super) fn import(&mut self) -> Write {
        const AT: &str = "2026-01-31T09:30:00Z";
        let mut talk = Talk::new(self.fresh(), self.some_people());
        let people: Vec<_> = talk.people.keys().map(|name| json!({"username": name})).collect();
        let mut lines = json!({"type": "conversation", "external_id": talk.name,
            "title": talk.title, "metadata": {"name": talk.name}, "created_at": AT,
            "participants": people})
        .to_string();
        for _ in 0..5 {
            let content = self.words();
            let line =
                json!({"type": "message", "role": "user", "content": content, "created_at": AT});
            lines.extend(["\n", &line.to_string()]);
            talk.say(None, content);
        }
        // Nobody could watch it when this happened.
        talk.events.clear();
        // The people are younger than what they said.
        let path = "/api/v1/conversations/import?attach_newer_accounts=true";
        let target = (Method::POST, path.to_owned());
        let mut write = Write::new(Import, target, &[], vec![Thing::Talk(talk)]);
        write.body = Some(("application/x-ndjson", lines + "\n"));
        write.key(&self.admin)
    }

    pub(super) fn talk(&mut self, kind: Kind) -> Option<Write> {
        let thing = self.take(is_talk)?;
        let Thing::Talk(mut talk) = thing.clone() else { return None };
        let path = format!("/api/v1/conversations/{}", talk.id);
        let write = if kind == DeleteTalk {
            Write::new(kind, (Method::DELETE, path), &[thing], vec![])
        } else {
            talk.title = self.fresh();
            talk.happened("conversation.updated", 1);
            let body = json!({"title": talk.title});
            Write::new(kind, (Method::PUT, path), &[thing], vec![Thing::Talk(talk)]).json(body)
        };
        Some(write.key(&self.admin))
    }

    pub(super) fn participants(&mut self, kind: Kind) -> Option<Write> {
        let people = self.some_people();
        let joining =
            |talk: &Talk| people.iter().find(|(name, _)| !talk.people.contains_key(*name));
        let thing = self.take(|thing| match thing {
            Thing::Talk(talk) if kind == Join => joining(talk).is_some(),
            Thing::Talk(talk) => !talk.people.is_empty(),
            _ => false,
        })?;
        let Thing::Talk(mut talk) = thing.clone() else { return None };
        let path = format!("/api/v1/conversations/{}/participants", talk.id);
        let write = if kind == Join {
            let (name, id) = joining(&talk)?;
            talk.people.insert(name.clone(), *id);
            talk.happened("participant.added", 1);
            let after = vec![Thing::Talk(talk)];
            Write::new(kind, (Method::POST, path), &[thing], after).json(json!({"user_id": id}))
        } else {
            let (name, id) = talk.people.first_key_value().map(|(n, id)| (n.clone(), *id))?;
            talk.leave(&name);
            let target = (Method::DELETE, format!("{path}/{id}"));
            Write::new(kind, target, &[thing], vec![Thing::Talk(talk)])
        };
        Some(write.key(&self.admin))
    }

    pub(super) fn say(&mut self, kind: Kind) -> Option<Write> {
        // Somebody logged in, and their token.
        let speaker = self.things.iter().find_map(|thing| match thing {
            Thing::Person(person) => Some((person.name.clone(), person.tokens.first()?.clone())),
            _ => None,
        });
        let by_session = kind == SayAsUser;
        let thing = self.take(|thing| match (thing, &speaker) {
            (Thing::Talk(talk), Some((name, _))) if by_session => talk.people.contains_key(name),
            (thing, _) => !by_session && is_short_talk(thing),
        })?;
        let Thing::Talk(mut talk) = thing.clone() else { return None };
        let author = talk.people.iter().choose(&mut rand::rng());
        let author = author.map(|(name, id)| (name.clone(), *id));
        let path = format!("/api/v1/conversations/{}/messages", talk.id);
        if let Some((name, token)) = speaker.filter(|_| by_session) {
            let content = self.words();
            let body = json!({"role": "user", "content": content});
            talk.say(Some(name), content);
            let after = vec![Thing::Talk(talk)];
            let write = Write::new(kind, (Method::POST, path), &[thing], after);
            return Some(write.session(&token).json(body));
        }
        let together = kind == SayTogether;
        let mut messages = vec![];
        for _ in 0..if together { 3 } else { 1 } {
            let content = self.words();
            let id = author.as_ref().map(|(_, id)| *id);
            messages.push(json!({"role": "user", "content": content, "user_id": id}));
            talk.say(author.as_ref().map(|(name, _)| name.clone()), content);
        }
        let path = if together { format!("{path}/batch") } else { path };
        let count = messages.len();
        let body = if together { json!({"messages": messages}) } else { messages.swap_remove(0) };
        let write = Write::new(kind, (Method::POST, path), &[thing], vec![Thing::Talk(talk)]);
        let write = write.key(&self.admin).json(body);
        Some(if kind == Say { write } else { write.once(self.fresh(), count) })
    }

    pub(super) fn said(&mut self, kind: Kind) -> Option<Write> {
        let thing = self.take(|thing| {
            matches!(thing, Thing::Talk(talk) if talk.said.iter().any(|said| !said.is_deleted))
        })?;
        let Thing::Talk(mut talk) = thing.clone() else { return None };
        let words = self.words();
        let said = talk.said.iter_mut().filter(|said| !said.is_deleted);
        let said = said.choose(&mut rand::rng())?;
        let path = format!("/api/v1/conversations/{}/messages/{}", talk.id, said.id);
        said.version += 1;
        let write = if kind == Erase {
            said.is_deleted = true;
            said.content.clear();
            talk.happened("message.deleted", 1);
            Write::new(kind, (Method::DELETE, path), &[thing], vec![Thing::Talk(talk)])
        } else {
            said.content.clone_from(&words);
            talk.happened("message.edited", 1);
            let after = vec![Thing::Talk(talk)];
            Write::new(kind, (Method::PATCH, path), &[thing], after).json(json!({"content": words}))
        };
        Some(write.key(&self.admin))
    }
}
