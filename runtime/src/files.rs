//! Files that hold secrets: readable by their owner alone from the first byte, and whole or absent
//! whenever the machine loses power.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// Makes a directory (mode 0700) where it is missing. Folders above it are shared with others and
/// get the usual mode.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(folder_of(path))?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(_) if path.is_dir() => Ok(()),
        made => made,
    }
}

/// Writes a file (mode 0600), replacing what was there. It is on disk when this returns.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    staged(folder, bytes)?.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Writes a file (mode 0600) that must not exist: `ErrorKind::AlreadyExists` where it does, and
/// then it is left as it was.
pub fn create_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    staged(folder, bytes)?.persist_noclobber(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// A file (mode 0600) that is written piece by piece. It has its name only once it is whole: dropped
/// before that, it leaves nothing behind. Where the program is killed, what is left is named for what
/// it is: `.NAME.partial-…`.
#[derive(Debug)]
pub struct PrivateFile {
    staged: NamedTempFile,
    path: PathBuf,
}

impl PrivateFile {
    /// Begins a file beside its final place.
    pub fn beside(path: &Path) -> io::Result<Self> {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".partial-");
        let staged = tempfile::Builder::new().prefix(&name).tempfile_in(folder_of(path))?;
        Ok(Self { staged, path: path.to_owned() })
    }

    /// Gives it its name, which nothing may have: `ErrorKind::AlreadyExists` where something does. It
    /// is on disk when this returns.
    pub fn persist_new(self) -> io::Result<()> {
        let Self { staged, path } = self;
        staged.as_file().sync_all()?;
        staged.persist_noclobber(&path).map_err(|error| error.error)?;
        sync_folder(folder_of(&path))
    }
}

impl io::Write for PrivateFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.staged.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.staged.flush()
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file beside its final place, with mode 0600 from its creation on.
fn staged(folder: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Without this a rename may be lost with the power.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn replaces_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "old and longer").unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"new".to_vec(), 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no stage is left behind");
    }

    #[test]
    fn a_directory_is_private_and_those_above_it_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shared/private");
        for _ in 0..2 {
            make_private_dir(&path).unwrap();
        }
        assert_eq!(mode(&path), 0o700);
        assert_ne!(mode(&folder.path().join("shared")), 0o700);
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(make_private_dir(&folder.path().join("file")).is_err());
    }

    #[test]
    fn never_overwrites_what_it_should_create() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create_private(&path, b"first").unwrap();
        let error = create_private(&path, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"first".to_vec(), 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no stage is left behind");
    }
}
