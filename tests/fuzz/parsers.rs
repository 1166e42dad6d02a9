//! Fuzz targets for parsers of a text.

use super::{check, like};
use axum::http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use octopus::audit::Anchor;
use octopus::core::config::DatabaseUrl;
use octopus::core::key_format::{
    ALPHABET, LENGTH, PREFIX, PREFIXES, RANDOM, checksum, is_plausible, is_token,
};
use octopus::core::network;
use octopus::http::{Client, RequestId};
use octopus::security::{AddressList, Scope, Scopes};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use secrecy::ExposeSecret;
use std::net::IpAddr;

fn secret(prefix: &'static str) -> impl Strategy<Value = String> {
    prop::collection::vec(select(ALPHABET.as_slice()), RANDOM).prop_map(move |random| {
        let body = format!("{prefix}{}", String::from_utf8(random).unwrap());
        let sum = checksum(body.as_bytes());
        body + &sum
    })
}

#[apply(without_database!)]
fn every_generated_key_is_plausible_and_no_mistyped_one_is() {
    let mistyped = (select(PREFIXES.as_slice()).prop_flat_map(secret), any::<Index>(), any::<u8>());
    check("mistyped_keys", mistyped, |(secret, at, c)| {
        let prefix = *PREFIXES.iter().find(|prefix| secret.starts_with(**prefix)).unwrap();
        prop_assert!(is_token(prefix, &secret));
        prop_assert!(prefix != PREFIX || is_plausible(&secret));
        let at = at.index(secret.len());
        let mut wrong = secret.clone().into_bytes();
        wrong[at] = c % 128;
        let wrong = String::from_utf8(wrong).unwrap();
        if wrong != secret {
            prop_assert!(PREFIXES.iter().all(|prefix| !is_token(prefix, &wrong)), "{wrong}");
            prop_assert!(wrong.len() != LENGTH || !is_plausible(&wrong), "{wrong}");
        }
        // Two swapped adjacent characters.
        let mut swapped = secret.clone().into_bytes();
        swapped.swap(at, (at + 1) % secret.len());
        let swapped = String::from_utf8(swapped).unwrap();
        prop_assert!(swapped == secret || !is_token(prefix, &swapped), "{swapped}");
        Ok(())
    });
}

#[apply(without_database!)]
fn no_text_is_a_key_or_a_token_by_chance() {
    const CORPUS: &[&str] = &[
        "octopus_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg0dZoMQ",
        "octs_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa000000",
        "octopus_",
        "an-older-key-from-the-python-days",
        "",
    ];
    check("keys", like(CORPUS), |text| {
        let is_known = text == CORPUS[0];
        prop_assert_eq!(
            is_plausible(&text),
            !text.is_empty() && (text.len() != LENGTH || is_known)
        );
        for prefix in PREFIXES {
            prop_assert!(!is_token(prefix, &text) || is_known && prefix == PREFIX);
        }
        Ok(())
    });
}

#[apply(without_database!)]
fn scopes_are_written_as_they_are_read() {
    const CORPUS: &[&str] = &[
        "admin",
        "read",
        "write",
        "admin,read,write",
        " read , write ",
        "users:read",
        "conversations:write,users:read",
        "audit:read",
        "keys:verify",
        ",",
        "Read",
        "root",
    ];
    check("scopes", like(CORPUS), |text| {
        let Ok(scopes) = text.parse::<Scopes>() else { return Ok(()) };
        let written = scopes.to_string();
        prop_assert_eq!(written.parse::<Scopes>(), Ok(scopes));
        // The set has the written scopes and those they imply, and no others.
        let words: Vec<&str> = text.split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
        prop_assert!(words.iter().all(|word| written.split(',').any(|held| held == *word)));
        prop_assert!(written.split(',').all(|held| words.contains(&held)));
        prop_assert_eq!(scopes.is_admin(), words.contains(&"admin"));
        for scope in Scope::ALL {
            prop_assert!(!words.contains(&scope.as_str()) || scopes.allow(scope));
        }
        Ok(())
    });
}

#[apply(without_database!)]
fn address_lists_are_written_as_they_are_read() {
    const CORPUS: &[&str] = &[
        "192.0.2.1",
        "192.0.2.0/24",
        "2001:db8::/32",
        "192.0.2.1,2001:db8::1",
        "::ffff:10.0.0.0/104",
        "::ffff:192.0.2.1",
        "0.0.0.0/0",
        "::/0",
        "fe80::1%eth0",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "1",
        "10.0.0.0/08",
        " 10.0.0.1 ,, 10.0.0.1 ",
        "::ffff:0:0/96",
        "::/95",
    ];
    check("address_lists", like(CORPUS), |text| {
        let Ok(list) = text.parse::<AddressList>() else { return Ok(()) };
        let written = list.to_string();
        prop_assert_eq!(written.parse::<AddressList>(), Ok(list.clone()));
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if let Ok(ip) = entry.parse::<IpAddr>() {
                prop_assert!(list.contains(ip), "{entry} in {written}");
            }
        }
        Ok(())
    });
}

#[apply(without_database!)]
fn networks_hold_the_addresses_they_are_written_with() {
    check("networks", (any::<IpAddr>(), 0..=128u8), |(ip, length)| {
        let text = format!("{ip}/{length}");
        let Some(network) = network::parse(&text) else {
            prop_assert!(ip.is_ipv4() && length > 32, "{text}");
            return Ok(());
        };
        let (plain, canonical) = (ip, ip.to_canonical());
        prop_assert!(network.contains(&canonical) || network.contains(&plain), "{text}: {network}");
        prop_assert_eq!(network::parse(&network.to_string()), Some(network));
        Ok(())
    });
}

#[apply(without_database!)]
fn a_client_cannot_choose_its_own_address() {
    const CORPUS: &[&str] = &[
        "198.51.100.1",
        "198.51.100.1, 10.0.0.2",
        "[2001:db8::1]:80",
        "198.51.100.1:4711",
        "unknown",
        "\"[2001:db8::1]\"",
        "::ffff:10.0.0.3",
        "10.0.0.1,10.0.0.2",
        "_hidden",
        "",
        ",",
        "[::1]",
    ];
    let trusted: Vec<IpNet> =
        ["10.0.0.0/8", "fd00::/8"].iter().map(|text| text.parse().unwrap()).collect();
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|network| network.contains(ip));
    let peer = prop_oneof![
        any::<IpAddr>(),
        any::<[u8; 3]>().prop_map(|[b, c, d]| IpAddr::from([10, b, c, d])),
    ];
    let real = any::<IpAddr>().prop_filter("a stranger", |ip| !is_trusted(&ip.to_canonical()));
    let lines = prop::collection::vec(like(CORPUS), 0..4);
    check("forwarded_headers", (peer, lines, real), |(peer, lines, real)| {
        let mut headers = HeaderMap::new();
        for line in &lines {
            if let Ok(value) = HeaderValue::from_bytes(line.as_bytes()) {
                headers.append("x-forwarded-for", value);
            }
        }
        let peer_is_trusted = is_trusted(&peer.to_canonical());
        let client = Client::of(peer, &headers, &trusted);
        prop_assert_eq!(client.ip, client.ip.to_canonical());
        if !peer_is_trusted {
            prop_assert_eq!(client.ip, peer.to_canonical());
            prop_assert_eq!(client.forged_header, !headers.is_empty());
            return Ok(());
        }
        // A trusted proxy appends the client's address, so the client's own header has no effect.
        headers.append("x-forwarded-for", real.to_string().parse().unwrap());
        let client = Client::of(peer, &headers, &trusted);
        prop_assert_eq!(client.ip, real.to_canonical());
        headers.append("x-forwarded-for", "10.9.8.7".parse().unwrap());
        prop_assert_eq!(Client::of(peer, &headers, &trusted).ip, real.to_canonical());
        Ok(())
    });
}

#[apply(without_database!)]
fn database_urls_are_read_or_refused() {
    const CORPUS: &[&str] = &[
        "sqlite:///./chat.db",
        "sqlite:////data/chat.db",
        "sqlite://chat.db?mode=rwc",
        "sqlite+aiosqlite:///x.db",
        "sqlite::memory:",
        "postgres://me:hunter2@db:5432/octopus",
        "postgresql+asyncpg://me@[::1]/octopus?sslmode=require",
        "mysql://x/y",
        "sqlite://",
        ":",
    ];
    check("database_urls", like(CORPUS), |text| {
        match text.parse::<DatabaseUrl>() {
            Ok(DatabaseUrl::Sqlite(path)) => {
                let path = path.to_str().unwrap();
                prop_assert!(!path.is_empty() && !path.ends_with('/'));
                prop_assert!(text.contains(path), "{path} is none of {text}");
            }
            Ok(DatabaseUrl::Postgres(url)) => {
                prop_assert!(url.expose_secret().starts_with("postgres:"));
                let shown = format!("{:?}", DatabaseUrl::Postgres(url));
                prop_assert!(!shown.contains("hunter2"), "{shown}");
            }
            // The error does not quote the text, which may have a password.
            Err(error) => prop_assert!(!error.to_string().contains("hunter2")),
        }
        Ok(())
    });
}

#[apply(without_database!)]
fn anchors_are_written_as_they_are_read() {
    const CORPUS: &[&str] = &[
        "1204:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "0:0000000000000000000000000000000000000000000000000000000000000000",
        "9223372036854775807:FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
        "-1:00",
        "1:",
        ":",
    ];
    check("anchors", like(CORPUS), |text| {
        let Ok(anchor) = text.parse::<Anchor>() else { return Ok(()) };
        prop_assert!(anchor.seq >= 0);
        prop_assert_eq!(anchor.to_string().parse::<Anchor>(), Ok(anchor.clone()));
        let (seq, hash) = text.split_once(':').unwrap();
        prop_assert_eq!(seq.parse::<i64>(), Ok(anchor.seq));
        prop_assert!(anchor.to_string().ends_with(&hash.to_lowercase()));
        Ok(())
    });
}

#[apply(without_database!)]
fn request_ids_can_be_sent_back() {
    check("request_ids", prop::collection::vec(any::<u8>(), 0..300), |bytes| {
        let value = HeaderValue::from_bytes(&bytes).ok();
        let id = RequestId::of(value.as_ref());
        prop_assert!(!id.as_str().is_empty() && id.as_str().len() <= 128, "{id:?}");
        prop_assert!(id.as_str().bytes().all(|b| b.is_ascii_graphic()), "{id:?}");
        prop_assert_eq!(id.header(), id.as_str());
        Ok(())
    });
}
