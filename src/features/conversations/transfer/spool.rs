//! What has arrived of a conversation, until the rest has: in memory while it is short, then in a
//! file. No transaction waits for a client.

use crate::core::error::{Error, Result};
use crate::core::trouble::Trouble;
use crate::db::Db;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Cursor, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncSeekExt, AsyncWriteExt, BufReader};

/// What is kept in memory.
const MEMORY: usize = 1024 * 1024;

/// Values that were put aside, to be read once.
pub struct Spool {
    folder: PathBuf,
    memory: Vec<u8>,
    file: Option<File>,
}

/// The values in their order.
pub struct Spooled {
    reader: Pin<Box<dyn AsyncBufRead + Send>>,
    line: Vec<u8>,
}

impl Spool {
    /// Nothing yet. The file, should it need one, is beside the database, or where the system wants
    /// such files if that is elsewhere. It has no name and is for its owner alone.
    pub fn new(db: &Db) -> Self {
        let folder = match db {
            Db::Sqlite { path, .. } => match path.parent() {
                Some(folder) if folder != Path::new("") => folder.to_owned(),
                _ => PathBuf::from("."),
            },
            Db::Postgres { .. } => std::env::temp_dir(),
        };
        Self { folder, memory: vec![], file: None }
    }

    /// Puts `value` aside.
    pub async fn push(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.memory, value).map_err(failed)?;
        self.memory.push(b'\n');
        if self.memory.len() > MEMORY {
            self.write().await.map_err(failed)?;
        }
        Ok(())
    }

    /// What was put aside.
    pub async fn read(self) -> Result<Spooled> {
        let reader = self.reader().await.map_err(failed)?;
        Ok(Spooled { reader, line: vec![] })
    }

    async fn reader(mut self) -> io::Result<Pin<Box<dyn AsyncBufRead + Send>>> {
        if self.file.is_some() {
            self.write().await?;
        }
        Ok(match self.file {
            None => Box::pin(Cursor::new(self.memory)),
            Some(mut file) => {
                file.seek(SeekFrom::Start(0)).await?;
                Box::pin(BufReader::with_capacity(64 * 1024, file))
            }
        })
    }

    async fn write(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::from_std(tempfile::tempfile_in(&self.folder)?)),
        };
        file.write_all(&self.memory).await?;
        file.flush().await?;
        self.memory.clear();
        Ok(())
    }
}

impl Spooled {
    /// The next value; `None` after the last.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        self.line.clear();
        if self.reader.read_until(b'\n', &mut self.line).await.map_err(failed)? == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&self.line).map(Some).map_err(failed)
    }
}

fn failed(error: impl Into<io::Error>) -> Error {
    let error = error.into();
    let reason = match Trouble::of_io(&error) {
        Trouble::Full => "There is no room to put aside what arrives",
        Trouble::Crowded => "Too many files are open to put aside what arrives",
        _ => {
            let reason = format!("what arrives cannot be put aside: {error}");
            return Error::Internal(reason.into());
        }
    };
    tracing::error!(event = "import.no_room", %error, "what arrives cannot be put aside");
    Error::Unavailable(reason)
}
