//! Reference pages are generated from the code.
//!
//! After a change of a setting or a command: `OCTOPUS_WRITE_DOCS=1 cargo test reference::`.

use crate::support::process::octopus;
use octopus::cli::Cli;
use octopus::core::config::{Config, reference};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Compares `file` with `expected`, or writes it.
fn is_current(file: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("OCTOPUS_WRITE_DOCS").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{file} is outdated: OCTOPUS_WRITE_DOCS=1 cargo test reference::");
}

#[apply(without_database!)]
fn the_configuration_page_is_generated_from_the_code() {
    const INTRODUCTION: &str = "\
# Configuration

Set an environment variable, or write it into a file `.env` in the working directory of the server; environment variables take
precedence. `octopus init` writes such a file. At start, the server checks all settings and reports all problems together.

Booleans are `true`, `1`, `yes`, `on` and `false`, `0`, `no`, `off`. A setting with two names can be read from a file:
`AUDIT_KEY_FILE=/run/secrets/audit_key`. Blanks and line breaks at both ends of the file are ignored. Most installations set only some of
the [common settings](#common-settings).

<!-- Generated from src/core/config/reference: OCTOPUS_WRITE_DOCS=1 cargo test reference:: -->
";
    is_current("docs/CONFIGURATION.md", &format!("{INTRODUCTION}{}", reference::markdown()));
}

#[apply(without_database!)]
fn the_example_of_env_is_generated_from_the_code() {
    is_current(".env.example", &reference::env_file(|_| None));
}

#[apply(without_database!)]
fn the_command_line_page_is_generated_from_the_code() {
    let options = clap_markdown::MarkdownOptions::new()
        .title("Command line".into())
        .show_footer(false)
        .show_table_of_contents(false);
    let page = clap_markdown::help_markdown_custom::<Cli>(&options);
    let lines: Vec<&str> = page.lines().map(str::trim_end).collect();
    is_current("docs/CLI.md", &format!("{}\n", lines.join("\n").trim_end()));
}

#[apply(without_database!)]
fn every_setting_has_one_entry_and_its_default_is_the_default() {
    let settings = || reference::GROUPS.iter().flat_map(|group| group.settings);
    let names: HashSet<&str> = settings().map(|setting| setting.name).collect();
    assert_eq!(names.len(), settings().count());
    // The defaults, written out, are a configuration that is the same as an empty one.
    let written: HashMap<String, String> =
        settings().map(|s| (s.name.to_owned(), s.default.to_owned())).collect();
    let [written, empty] =
        [written, HashMap::new()].map(|variables| Config::from_variables(variables).unwrap());
    assert_eq!(format!("{written:?}"), format!("{empty:?}"));
    // Examples are accepted, but for those that are commands.
    for setting in settings().filter(|s| !s.example.is_empty() && !s.example.contains('$')) {
        let secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        let variables = [(setting.name, setting.example), ("WEBHOOK_SECRET", secret)];
        let needed = if setting.name == "WEBHOOK_URL" { 2 } else { 1 };
        let variables = variables[..needed].iter().map(|(n, v)| ((*n).into(), (*v).into()));
        let read = Config::from_variables(variables.collect());
        assert!(read.is_ok(), "{}: {}", setting.name, read.unwrap_err());
    }
}

#[apply(without_database!)]
fn init_writes_a_configuration_that_the_server_reads_and_never_overwrites_one() {
    let folder = tempfile::tempdir().unwrap();
    let init =
        |arguments: &[&str]| octopus(folder.path()).arg("init").args(arguments).output().unwrap();
    let url = "postgres://me:it's#$a secret@localhost/octopus";
    let output = init(&["--registration", "key", "--postgres", url]);
    assert!(output.status.success(), "{output:?}");
    let path = folder.path().join(".env");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let first = fs::read_to_string(&path).unwrap();
    let variables: HashMap<String, String> =
        dotenvy::from_path_iter(&path).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(variables["DATABASE_URL"], url.replace('\'', "%27"));
    assert_eq!(variables["REGISTRATION"], "key");
    assert_eq!(variables.len(), 4, "{variables:?}");
    let config = Config::from_variables(variables.clone()).unwrap();
    assert!(config.bootstrap_token.is_some());
    assert!(String::from_utf8(output.stdout).unwrap().contains(&variables["BOOTSTRAP_TOKEN"]));
    let again = init(&[]);
    assert!(again.status.success());
    assert_eq!(again.stdout, b".env already exists; nothing was changed\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), first);
}

#[apply(without_database!)]
fn init_refuses_a_url_that_is_not_of_postgres() {
    let folder = tempfile::tempdir().unwrap();
    for url in ["sqlite:///./other.db", "localhost", ""] {
        let output = octopus(folder.path()).args(["init", "--postgres", url]).output().unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8(output.stderr).unwrap().contains("--postgres"), "{url}");
        assert!(!folder.path().join(".env").exists());
    }
}

#[apply(without_database!)]
fn init_leaves_the_audit_key_of_an_existing_database() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("chat_conversations.db.audit-key"), "a key").unwrap();
    assert!(octopus(folder.path()).arg("init").output().unwrap().status.success());
    let file = fs::read_to_string(folder.path().join(".env")).unwrap();
    assert!(file.contains("\n#AUDIT_KEY=\n") && file.contains("\nBOOTSTRAP_TOKEN="), "{file}");
}
