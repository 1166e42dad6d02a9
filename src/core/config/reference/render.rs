//! Renders the reference as a Markdown table and as a `.env` file.

use super::model::{Kind, Setting};
use super::settings::GROUPS;
use std::fmt::Write;

/// Lines of `.env.example` are wrapped after this many characters.
const WIDTH: usize = 118;

/// The page `docs/CONFIGURATION.md`, without its introduction.
pub fn markdown() -> String {
    let mut page = String::new();
    for (index, group) in GROUPS.iter().enumerate() {
        if index == 1 {
            page.push_str("\n## Tuning\n");
        }
        let level = if index == 0 { "##" } else { "###" };
        let _ = write!(page, "\n{level} {}\n\n", group.title);
        page.push_str("| setting | default | unit | meaning | example |\n|---|---|---|---|---|\n");
        for setting in group.settings {
            let code =
                |text: &str| if text.is_empty() { "–".into() } else { format!("`{text}`") };
            let name = match setting.kind {
                Kind::Plain => format!("`{}`", setting.name),
                Kind::Secret => format!("`{0}`, `{0}_FILE`", setting.name),
            };
            let (default, example) = (code(setting.default), code(setting.example));
            let (unit, meaning) = (setting.unit, setting.meaning);
            let _ = writeln!(page, "| {name} | {default} | {unit} | {meaning} | {example} |");
        }
    }
    page
}

/// A `.env` file. Settings for which `value` returns a value are set; all others are commented out
/// with their defaults.
pub fn env_file(value: impl Fn(&Setting) -> Option<String>) -> String {
    let mut file = String::from(
        "# Settings of Octopus. The server reads this file as .env from its working directory; environment\n\
         # variables take precedence. A line that is commented out shows the default. Put a value with a blank,\n\
         # a $ or a # in single quotes.\n",
    );
    for group in GROUPS {
        let _ = write!(file, "\n# --- {}\n", group.title);
        for setting in group.settings {
            file.push('\n');
            let mut meaning = setting.meaning.replace('`', "");
            if setting.kind == Kind::Secret {
                let _ =
                    write!(meaning, " Or {}_FILE: the path of a file that holds it.", setting.name);
            }
            for line in wrapped(&meaning) {
                let _ = writeln!(file, "# {line}");
            }
            let _ = match value(setting) {
                Some(value) => writeln!(file, "{}={value}", setting.name),
                None => writeln!(file, "#{}={}", setting.name, setting.default),
            };
        }
    }
    file
}

/// Breaks `text` into lines between words.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().filter(|line| line.len() + word.len() < WIDTH);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}
