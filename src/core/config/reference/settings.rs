//! Every setting, as the configuration reference, `.env.example` and `octopus init` show it.

use super::model::{Group, Kind, Setting};

/// Builds the groups. Each setting is `NAME = default, unit, example, kind: meaning;`.
macro_rules! groups {
    ($($title:literal {
        $($name:ident = $default:literal, $unit:literal, $example:literal, $kind:ident: $meaning:literal;)*
    })*) => {
        &[$(Group {
            title: $title,
            settings: &[$(Setting {
                name: stringify!($name),
                default: $default,
                unit: $unit,
                example: $example,
                kind: Kind::$kind,
                meaning: $meaning,
            }),*],
        }),*]
    };
}

/// All settings; the first group holds those that most installations set.
pub const GROUPS: &[Group] = groups! {
    "Common settings" {
        DATABASE_URL = "sqlite:///./chat_conversations.db", "URL", "postgres://octopus:secret@localhost/octopus", Secret:
            "Where the data is stored: an SQLite file (`sqlite:///./name.db` in the working \
             directory, `sqlite:////data/name.db` with an absolute path) or Postgres. \
             SQLAlchemy's `sqlite+…://` and `postgresql+…://` work too.";
        HOST = "127.0.0.1", "IP address", "0.0.0.0", Plain:
            "Address to listen on: an IP address or `localhost`. `0.0.0.0` is every IPv4 \
             address of the machine.";
        PORT = "8000", "port", "8080", Plain:
            "Port to listen on.";
        AUDIT_KEY = "", "32 bytes or more", "$(openssl rand -hex 32)", Secret:
            "Key that signs the audit log. On SQLite, the default is a generated key in the \
             file `DATABASE.audit-key` beside the database; once `AUDIT_KEY` is set, that file \
             is not read. On Postgres it is required and the same for every server.";
        BOOTSTRAP_TOKEN = "", "text", "$(openssl rand -hex 32)", Secret:
            "Token that `POST /bootstrap` requires in the header `Octopus-Bootstrap-Token`. \
             Must be hard to guess. If unset, only callers from public addresses need a token, \
             which the server logs at start.";
        REGISTRATION = "open", "`open`, `key`, `closed`", "key", Plain:
            "Who can register users: `open` (anyone), `key` (API keys with the `write` scope) \
             or `closed` (no one).";
        TRUSTED_PROXIES = "", "addresses, networks", "10.0.0.0/8,192.0.2.7", Plain:
            "Proxies whose `X-Forwarded-For` and `X-Forwarded-Prefix` are trusted, separated by \
             commas. A network larger than any private one is reported at start, as all of its \
             members can choose their client address.";
        PUBLIC_URL = "", "URL", "https://example.com/octopus", Plain:
            "URL at which clients reach the server through a proxy, with the path that the proxy \
             removes. Links, redirects and the OpenAPI document use it. If unset, they contain \
             paths, below the `X-Forwarded-Prefix` of a trusted proxy.";
        CORS_ALLOWED_ORIGINS = "", "origins", "https://app.example.com", Plain:
            "Origins of other web sites whose pages may call the API (CORS), separated by commas.";
        BACKUP_DIR = "", "directory", "/var/backups/octopus", Plain:
            "Directory for scheduled backups of an SQLite database. It must belong to this \
             server alone. If unset, no backups are made.";
        METRICS_ADDR = "", "address:port", "127.0.0.1:9000", Plain:
            "Listener for Prometheus metrics. If unset, there is none.";
    }
    "First API key" {
        MASTER_API_KEY = "", "text", "$(openssl rand -hex 32)", Secret:
            "An API key of your own: 32 or more visible ASCII characters, hard to guess. \
             Registered at start while the database has no key.";
        ALLOWED_HOSTS = "", "host names", "octopus.example", Plain:
            "Host names for which `POST /bootstrap` works without a token, separated by commas. \
             IP addresses and `localhost` always work.";
        BOOTSTRAP_WINDOW_MINUTES = "60", "minutes", "0", Plain:
            "How long after the start `POST /bootstrap` works without a token. `0`: as long as \
             there is no key.";
    }
    "Users and sessions" {
        PASSWORD_MIN_LENGTH = "8", "characters", "12", Plain:
            "Minimum length of a password, from 8 to 128.";
        PASSWORD_HASHER = "argon2id", "`argon2id`, `bcrypt`", "bcrypt", Plain:
            "Algorithm for new password hashes. `bcrypt` accepts at most 72 bytes. Existing \
             hashes of both kinds always verify.";
        SESSION_IDLE_HOURS = "336", "hours", "24", Plain:
            "A session expires after this time without use, from 1 to 87600.";
        SESSION_MAX_HOURS = "2160", "hours", "720", Plain:
            "A session expires after this time in any case, from 1 to 87600.";
        USER_MAX_BYTES = "", "bytes", "1073741824", Plain:
            "Maximum text and metadata that one signed-in user can store. Past it, writes fail \
             with 403. What was stored before either quota was first set does not count.";
        USER_MAX_CONVERSATIONS = "", "conversations", "10000", Plain:
            "Maximum number of conversations that one signed-in user can create.";
    }
    "Rate limits" {
        RATE_LIMIT_ENABLED = "true", "boolean", "false", Plain:
            "Whether rate limits are enforced.";
        RATE_LIMIT_IP_PER_MINUTE = "100", "requests/minute", "300", Plain:
            "Requests without a valid credential, per client.";
        RATE_LIMIT_AUTH_FAILURES_PER_MINUTE = "10", "requests/minute", "20", Plain:
            "Requests with an invalid credential (API key, session token or ticket), per client.";
        RATE_LIMIT_KEY_CREATION_PER_MINUTE = "60", "keys/minute", "10", Plain:
            "API keys created, per API key that creates them.";
        RATE_LIMIT_REGISTRATION_PER_MINUTE = "5", "users/minute", "1", Plain:
            "Users registered without an API key, per client.";
        RATE_LIMIT_LOGIN_PER_MINUTE = "10", "attempts/minute", "5", Plain:
            "Failed sign-ins, per email or username; failed attempts at the current password, \
             per user.";
        RATE_LIMIT_LOGIN_CLIENT_PER_MINUTE = "30", "attempts/minute", "10", Plain:
            "Failed sign-ins and failed attempts at password-reset tokens, per client.";
        RATE_LIMIT_USER_PER_MINUTE = "600", "requests/minute", "1200", Plain:
            "Requests of one signed-in user, over all sessions.";
        RATE_LIMIT_KEY_PER_MINUTE = "6000", "requests/minute", "60000", Plain:
            "Requests of one API key without its own limit.";
    }
    "Limits and timeouts" {
        MAX_BODY_BYTES = "2097152", "bytes", "16777216", Plain:
            "Maximum request body. Registration, sign-in and similar routes accept at most \
             32768.";
        MAX_CONNECTIONS = "10000", "connections", "2000", Plain:
            "Maximum open connections. Lower where `ulimit -Hn` allows fewer files.";
        MAX_CONNECTIONS_PER_CLIENT = "", "connections", "100", Plain:
            "Maximum open connections of one client address (an IPv6 /64). Default: a quarter \
             of `MAX_CONNECTIONS`. `TRUSTED_PROXIES` are exempt.";
        MEMORY_BUDGET_BYTES = "268435456", "bytes", "67108864", Plain:
            "Memory for large request bodies in flight and large responses not yet sent. Past \
             it, large requests fail with 503. At least 67108864 and four times \
             `MAX_BODY_BYTES`.";
        REQUEST_TIMEOUT_SECONDS = "30", "seconds", "60", Plain:
            "Time for the request body to arrive, and then for the response to be ready.";
        HEADER_TIMEOUT_SECONDS = "10", "seconds", "5", Plain:
            "Time for the request headers to arrive.";
        IDLE_TIMEOUT_SECONDS = "30", "seconds", "60", Plain:
            "A connection without progress is closed after this time.";
        SHUTDOWN_GRACE_SECONDS = "8", "seconds", "25", Plain:
            "Time for running requests after SIGTERM or Ctrl-C.";
    }
    "Retention and background jobs" {
        CLEANUP_INTERVAL_SECONDS = "60", "seconds", "300", Plain:
            "Interval of the job that expires API keys and removes old conversations.";
        RETENTION_DAYS = "", "days", "365", Plain:
            "Conversations without a message for this time are removed. If unset, none are.";
        EVENT_RETENTION_DAYS = "30", "days", "7", Plain:
            "How long conversation events are kept, and so how long a disconnected event stream \
             can resume.";
        AUDIT_RETENTION_DAYS = "", "days", "730", Plain:
            "Audit entries older than this are removed behind a signed checkpoint. If unset, \
             none are.";
        BACKUP_INTERVAL_HOURS = "24", "hours", "6", Plain:
            "Interval between two scheduled backups, from 1 to 8760.";
        BACKUP_KEEP = "7", "backups", "30", Plain:
            "Number of scheduled backups to keep.";
    }
    "Audit log" {
        AUDIT_KEYS_OLD = "", "keys", "", Secret:
            "Earlier values of `AUDIT_KEY`, separated by commas: entries signed with them still \
             verify.";
        AUDIT_ANCHOR_FILE = "", "path", "/mnt/anchors/octopus.txt", Plain:
            "File on another disk or host to which the head of the audit log is appended within \
             a minute of every change. `octopus verify` compares the log with its newest line.";
        AUDIT_ANCHOR_URL = "", "URL", "https://anchors.example/octopus", Secret:
            "URL to which the head of the audit log is posted as JSON within a minute of every \
             change.";
    }
    "Webhooks" {
        WEBHOOK_URL = "", "URL", "https://hooks.example/octopus", Secret:
            "Receiver of webhook events about API keys. If unset, none are sent.";
        WEBHOOK_SECRET = "", "`whsec_` + base64", "whsec_$(openssl rand -base64 32)", Secret:
            "Secret that signs webhook events: `whsec_` and 24 to 64 bytes in base64. Required \
             with `WEBHOOK_URL`.";
    }
    "Server, documentation and logs" {
        AUTO_MIGRATE = "true", "boolean", "false", Plain:
            "Whether the server migrates an older schema at start. If `false`, it refuses to \
             start until `octopus migrate` was run.";
        DOCS_ENABLED = "true", "boolean", "false", Plain:
            "Whether `/docs` and `/openapi.json` are served.";
        LOG_FORMAT = "auto", "`auto`, `json`, `pretty`", "json", Plain:
            "Log format. `auto` is `pretty` on a terminal and `json` elsewhere.";
        RUST_LOG = "info", "filter", "octopus=debug", Plain:
            "Log level, also per module.";
    }
};
