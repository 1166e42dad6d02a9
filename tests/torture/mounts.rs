//! Small file systems for one test. Mounting needs root. Without it, the test reports that it was
//! skipped and passes, unless `OCTOPUS_REQUIRE_MOUNT` is set.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A small disk, unmounted on drop.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Mounts a file system in memory with a capacity in KiB.
    pub fn new(kilobytes: usize) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("octopus-test-disk-").tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kilobytes}k,mode=755"), "octopus-test"]);
        match mount.arg(folder.path()).output() {
            Ok(output) if output.status.success() => Some(Self { folder }),
            Ok(output) => skipped("mount", &String::from_utf8_lossy(&output.stderr)),
            Err(error) => skipped("mount", &error.to_string()),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills the free space.
    pub fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4096, 1] {
            let block = vec![0; size];
            loop {
                match file.write(&block) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Frees the space again.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    /// Remounts it with this option.
    pub fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        let status = Command::new("mount").args(["-o", &option]).arg(self.path()).status();
        assert!(status.unwrap().success(), "{option}");
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// Reports that the test was skipped because `what` does not work here.
pub fn skipped<T>(what: &str, why: &str) -> Option<T> {
    let text = format!("\n*** NOT TESTED *** {what} does not work here: {why}\n");
    assert!(std::env::var_os("OCTOPUS_REQUIRE_MOUNT").is_none(), "{text}");
    // The harness would capture `eprintln!`.
    let _ = io::stderr().write_all(text.as_bytes());
    None
}
