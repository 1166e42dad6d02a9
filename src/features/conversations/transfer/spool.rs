//! Buffers a conversation until it has arrived completely: in memory while it is short, then in a
//! temporary file. No transaction is open while the server waits for the client.

use crate::core::error::{Error, Result};
use crate::core::transient_error::TransientError;
use crate::db::Db;
use crate::db::files::directory_of;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Cursor, SeekFrom};
use std::path::PathBuf;
use std::pin::Pin;
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncSeekExt, AsyncWriteExt, BufReader};

/// Maximum bytes buffered in memory.
const MAX_MEMORY_BYTES: usize = 1024 * 1024;

/// A buffer of serialized values that is written first and then read once.
pub struct Spool {
    folder: PathBuf,
    memory: Vec<u8>,
    file: Option<File>,
}

/// Reads the values of a spool, in order.
pub struct Spooled {
    reader: Pin<Box<dyn AsyncBufRead + Send>>,
    line: Vec<u8>,
}

impl Spool {
    /// Creates an empty spool. With SQLite, its file is in the folder of the database; with
    /// Postgres, in the system's folder for temporary files. The file is unnamed and private to its
    /// owner.
    pub fn new(db: &Db) -> Self {
        let folder = match db {
            Db::Sqlite { path, .. } => directory_of(path).to_owned(),
            Db::Postgres { .. } => std::env::temp_dir(),
        };
        Self { folder, memory: vec![], file: None }
    }

    /// Appends `value`. Fails with 503 if the disk is full or too many files are open.
    pub async fn push(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.memory, value).map_err(spool_error)?;
        self.memory.push(b'\n');
        if self.memory.len() > MAX_MEMORY_BYTES {
            self.write().await.map_err(spool_error)?;
        }
        Ok(())
    }

    /// Finishes writing and returns a reader of the values.
    pub async fn read(self) -> Result<Spooled> {
        let reader = self.reader().await.map_err(spool_error)?;
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
        if self.reader.read_until(b'\n', &mut self.line).await.map_err(spool_error)? == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&self.line).map(Some).map_err(spool_error)
    }
}

fn spool_error(error: impl Into<io::Error>) -> Error {
    let error = error.into();
    let reason = match TransientError::of_io(&error) {
        TransientError::DiskFull => "There is not enough disk space to buffer the import",
        TransientError::Busy => "Too many files are open to buffer the import",
        _ => {
            let reason = format!("cannot buffer the import: {error}");
            return Error::Internal(reason.into());
        }
    };
    tracing::error!(event = "import.buffer_failed", %error, "cannot buffer the import");
    Error::Unavailable(reason)
}
