//! Every kind of write there is.

use super::things::{Item, Key, KeyRow, Person, Thing};
use super::writer::{Write, Writer};
use Kind::{
    Activate, BeginTalk, BeginTalkOnce, CreateItem, CreateKey, CreateKeyOnce, Deactivate,
    DeactivateKey, DeleteItem, DeleteKey, DeletePerson, DeleteTalk, Edit, Erase, Import, Join,
    Leave, LogIn, LogOut, Register, Rename, RenameItem, RenameMyself, Retitle, RotateKey,
    RotateKeyOnce, Say, SayAsUser, SayOnce, SayTogether, UpdateKey,
};
use reqwest::Method;
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery";
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    CreateItem,
    RenameItem,
    DeleteItem,
    CreateKey,
    CreateKeyOnce,
    UpdateKey,
    DeactivateKey,
    RotateKey,
    RotateKeyOnce,
    DeleteKey,
    Register,
    Rename,
    RenameMyself,
    Deactivate,
    Activate,
    LogIn,
    LogOut,
    DeletePerson,
    BeginTalk,
    BeginTalkOnce,
    Retitle,
    Say,
    SayOnce,
    SayAsUser,
    SayTogether,
    Edit,
    Erase,
    Join,
    Leave,
    DeleteTalk,
    Import,
}

impl Kind {
    /// Each, and how often it is tried. Passwords take their time: few of those.
    pub const ALL: [(Self, u32); 31] = [
        (CreateItem, 6),
        (RenameItem, 6),
        (DeleteItem, 3),
        (CreateKey, 5),
        (CreateKeyOnce, 3),
        (UpdateKey, 5),
        (DeactivateKey, 2),
        (RotateKey, 3),
        (RotateKeyOnce, 2),
        (DeleteKey, 3),
        (Register, 2),
        (Rename, 4),
        (RenameMyself, 4),
        (Deactivate, 2),
        (Activate, 4),
        (LogIn, 2),
        (LogOut, 1),
        (DeletePerson, 1),
        (BeginTalk, 5),
        (BeginTalkOnce, 3),
        (Retitle, 4),
        (Say, 16),
        (SayOnce, 10),
        (SayAsUser, 8),
        (SayTogether, 6),
        (Edit, 8),
        (Erase, 5),
        (Join, 5),
        (Leave, 4),
        (DeleteTalk, 2),
        (Import, 3),
    ];

    /// Whether it answers 409 when it is sent again, as it cannot answer the same.
    pub fn tells_no_secret_twice(self) -> bool {
        matches!(self, CreateKeyOnce | RotateKeyOnce)
    }

    pub fn is_import(self) -> bool {
        self == Import
    }

    /// What is in its writer's hands after it was answered.
    pub fn adopt(self, mut things: Vec<Thing>, answer: &Value) -> Vec<Thing> {
        let id = |value: &Value| value["id"].as_i64().expect("an id");
        let text = |name: &str| answer[name].as_str().expect(name).to_owned();
        match (self, things.first_mut()) {
            (CreateKey | CreateKeyOnce | RotateKey | RotateKeyOnce, Some(Thing::Key(key))) => {
                (key.id, key.secret) = (id(answer), text("key"));
            }
            (Register, Some(Thing::Person(person))) => person.id = id(answer),
            (LogIn, Some(Thing::Person(person))) => person.tokens.push(text("access_token")),
            (BeginTalk | BeginTalkOnce, Some(Thing::Talk(talk))) => talk.id = id(answer),
            (Say | SayOnce | SayAsUser, Some(Thing::Talk(talk))) => {
                assert_eq!(answer["seq"], talk.said.len(), "a number was left out or used twice");
                talk.said.last_mut().expect("what was said").id = id(answer);
            }
            (SayTogether, Some(Thing::Talk(talk))) => {
                let answers = answer.as_array().expect("a list");
                let first = talk.said.len() - answers.len();
                talk.said[first..]
                    .iter_mut()
                    .zip(answers)
                    .for_each(|(s, answer)| s.id = id(answer));
            }
            // It does not tell the id.
            (Import, _) => things.clear(),
            _ => {}
        }
        things
    }
}

fn is_item(thing: &Thing) -> bool {
    matches!(thing, Thing::Item(_))
}

fn is_key(thing: &Thing) -> bool {
    matches!(thing, Thing::Key(_))
}

fn is_active_key(thing: &Thing) -> bool {
    matches!(thing, Thing::Key(key) if key.rows.last().is_some_and(|row| row.is_active))
}

impl Writer {
    /// A write of this kind, if its writer has what it takes.
    pub fn make(&mut self, kind: Kind) -> Option<Write> {
        match kind {
            CreateItem | RenameItem | DeleteItem => self.item(kind),
            CreateKey | CreateKeyOnce => Some(self.new_key(kind)),
            UpdateKey | DeactivateKey | RotateKey | RotateKeyOnce | DeleteKey => self.key(kind),
            Register => Some(self.register()),
            Rename | RenameMyself | Deactivate | Activate | LogIn | LogOut => self.person(kind),
            DeletePerson => self.delete_person(),
            BeginTalk | BeginTalkOnce => Some(self.begin_talk(kind)),
            Import => Some(self.import()),
            Retitle | DeleteTalk => self.talk(kind),
            Join | Leave => self.participants(kind),
            Say | SayOnce | SayAsUser | SayTogether => self.say(kind),
            Edit | Erase => self.said(kind),
        }
    }

    fn item(&mut self, kind: Kind) -> Option<Write> {
        const ITEMS: &str = "/api/v1/items";
        let name = self.fresh();
        if kind == CreateItem {
            let (id, body) = (name.clone(), json!({"item_id": name, "name": name}));
            let made = vec![Thing::Item(Item { id, name })];
            let write = Write::new(kind, (Method::POST, ITEMS.to_owned()), &[], made);
            return Some(write.key(&self.admin).json(body));
        }
        let thing = self.take(is_item)?;
        let Thing::Item(item) = &thing else { return None };
        let path = format!("{ITEMS}/{}", item.id);
        let write = if kind == DeleteItem {
            Write::new(kind, (Method::DELETE, path), &[thing], vec![])
        } else {
            let (id, body) = (item.id.clone(), json!({"name": name}));
            let renamed = vec![Thing::Item(Item { id, name })];
            Write::new(kind, (Method::PUT, path), &[thing], renamed).json(body)
        };
        Some(write.key(&self.admin))
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
        let key = Key { name, id: 0, secret, rows: vec![row], trail: vec!["create"] };
        let target = (Method::POST, "/api/v1/api-keys".to_owned());
        let write = Write::new(kind, target, &[], vec![Thing::Key(key)]);
        let write = write.key(&self.admin).json(body);
        if kind == CreateKeyOnce { write.once(self.fresh(), 1) } else { write }
    }

    fn key(&mut self, kind: Kind) -> Option<Write> {
        let thing = self.take(if kind == DeleteKey { is_key } else { is_active_key })?;
        let Thing::Key(mut key) = thing.clone() else { return None };
        let (path, secret) = (format!("/api/v1/api-keys/{}", key.id), key.secret.clone());
        let ends = if kind == UpdateKey { vec![] } else { vec![secret] };
        let mut write = match kind {
            UpdateKey => {
                key.newest().description = self.fresh();
                key.trail.push("update");
                let body = json!({"description": key.newest().description});
                let after = vec![Thing::Key(key)];
                Write::new(kind, (Method::PATCH, path), &[thing], after).json(body)
            }
            DeactivateKey => {
                key.newest().is_active = false;
                key.trail.push("deactivate");
                let target = (Method::POST, format!("{path}/deactivate"));
                Write::new(kind, target, &[thing], vec![Thing::Key(key)])
            }
            DeleteKey => {
                key.trail.push("delete");
                let mut write = Write::new(kind, (Method::DELETE, path), &[thing], vec![]);
                write.after = key.facts_without_newest();
                write
            }
            _ => {
                let successor = key.newest().clone();
                (key.newest().is_active, key.newest().is_rotated) = (false, true);
                key.rows.push(successor);
                key.trail.extend(["rotate", "create"]);
                let target = (Method::POST, format!("{path}/rotate"));
                let write = Write::new(kind, target, &[thing], vec![Thing::Key(key)]);
                if kind == RotateKeyOnce { write.once(self.fresh(), 1) } else { write }
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
        let person = Person {
            name,
            id: 0,
            full_name,
            is_active: true,
            tokens: vec![],
            sessions: 0,
            trail: vec![],
        };
        let target = (Method::POST, "/api/v1/users".to_owned());
        Write::new(Register, target, &[], vec![Thing::Person(person)]).json(body)
    }

    fn person(&mut self, kind: Kind) -> Option<Write> {
        let thing = self.take(|thing| match thing {
            Thing::Person(person) => match kind {
                Activate => !person.is_active,
                RenameMyself | LogOut => !person.tokens.is_empty(),
                Rename => true,
                _ => person.is_active,
            },
            _ => false,
        })?;
        let Thing::Person(mut person) = thing.clone() else { return None };
        let of_user = (Method::PUT, format!("/api/v1/users/{}", person.id));
        let (admin, before) = (self.admin.clone(), [thing]);
        let write = |target, after| Write::new(kind, target, &before, vec![Thing::Person(after)]);
        Some(match kind {
            Rename => {
                person.full_name = self.fresh();
                person.trail.push("update_user");
                let body = json!({"full_name": person.full_name});
                write(of_user, person).key(&admin).json(body)
            }
            RenameMyself => {
                person.full_name = self.fresh();
                let (body, token) =
                    (json!({"full_name": person.full_name}), person.tokens[0].clone());
                let me = (Method::PUT, "/api/v1/users/me".to_owned());
                write(me, person).session(&token).json(body)
            }
            Activate | Deactivate => {
                person.is_active = kind == Activate;
                person.trail.push("update_user");
                let body = json!({"is_active": person.is_active});
                let ends = std::mem::take(&mut person.tokens);
                person.sessions = 0;
                let mut write = write(of_user, person).key(&admin).json(body);
                write.ends = ends;
                write
            }
            LogOut => {
                let token = person.tokens.remove(0);
                person.sessions -= 1;
                let target = (Method::POST, "/api/v1/users/logout".to_owned());
                let mut write = write(target, person).session(&token);
                write.ends = vec![token];
                write
            }
            _ => {
                person.sessions += 1;
                let body = json!({"username": person.name, "password": PASSWORD});
                write((Method::POST, "/api/v1/users/login".to_owned()), person).json(body)
            }
        })
    }

    /// Deletes somebody, whom all of their conversations lose.
    fn delete_person(&mut self) -> Option<Write> {
        let entangled = std::mem::take(&mut self.entangled);
        let free =
            |thing: &Thing| matches!(thing, Thing::Person(p) if !entangled.contains(&p.name));
        let found = self.take(free);
        self.entangled = entangled;
        let thing = found?;
        let Thing::Person(mut person) = thing.clone() else { return None };
        let (mut before, mut after) = (vec![thing], vec![]);
        let knows = |thing: &Thing| matches!(thing, Thing::Talk(talk) if talk.names().any(|name| name == person.name));
        while let Some(thing) = self.take(knows) {
            if let Thing::Talk(mut talk) = thing.clone() {
                talk.leave(&person.name);
                talk.disown(&person.name);
                after.push(Thing::Talk(talk));
            }
            before.push(thing);
        }
        let target = (Method::DELETE, format!("/api/v1/users/{}", person.id));
        let mut write = Write::new(DeletePerson, target, &before, after);
        person.trail.push("delete_user");
        write.after.extend(person.facts_when_gone());
        write.ends = person.tokens;
        Some(write.key(&self.admin))
    }
}
