//! The files that `-f` names: files, folders of them, and what somebody pipes in.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    Declared,
    place::{File, Mark, Mistakes},
};
use crate::failure::Failure;

/// More than this is no file of policies.
const MAX_BYTES: u64 = 16 << 20;

/// The files that a command reads.
#[derive(Debug, clap::Args)]
pub(crate) struct Sources {
    /// A file, a folder (its .yaml, .yml and .json files), or - for stdin; may be given several times
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Reads all files, and finds what is wrong with them.
pub(crate) fn read(sources: &Sources) -> Result<(Declared, Mistakes), Failure> {
    let (mut declared, mut mistakes) = (Declared::default(), Mistakes::default());
    let mut order = 0;
    for source in &sources.files {
        for (name, bytes) in contents(source)? {
            let file = File::new(order, &name);
            match std::str::from_utf8(&bytes) {
                Ok(text) => declared.add(&file, text, &mut mistakes),
                Err(error) => {
                    let mark = end(&bytes[..error.valid_up_to()]);
                    mistakes.add(file.place(mark), "not UTF-8, which a file of these has to be");
                }
            }
            order += 1;
        }
    }
    if mistakes.is_empty() && declared.items.is_empty() && declared.expectations.is_empty() {
        return Err(Failure::Failed("there is nothing in these files".into()));
    }
    Ok((declared, mistakes))
}

/// The names and contents of what one `-f` means.
fn contents(source: &Path) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    if source == Path::new("-") {
        let bytes = bytes(io::stdin()).map_err(|error| Failure::Failed(format!("stdin: {error}")));
        return Ok(vec![("stdin".into(), bytes?)]);
    }
    let paths = if source.is_dir() { folder(source)? } else { vec![source.to_owned()] };
    let read = |path: PathBuf| {
        let bytes = fs::File::open(&path).and_then(bytes).map_err(|error| failed(&path, &error))?;
        Ok((path.display().to_string(), bytes))
    };
    paths.into_iter().map(read).collect()
}

fn folder(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let paths = fs::read_dir(folder).map_err(|error| failed(folder, &error))?;
    let paths = paths.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.map_err(|error| failed(folder, &error))?;
    let is_ours = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
    };
    paths.retain(is_ours);
    paths.sort();
    Ok(paths)
}

fn bytes(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        let why = format!("more than {} MiB", MAX_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// Where what follows a text stands.
fn end(text: &[u8]) -> Mark {
    let last = text.split(|byte| *byte == b'\n').next_back().unwrap_or_default();
    let line = 1 + text.iter().filter(|byte| **byte == b'\n').count();
    Mark { line, column: 1 + String::from_utf8_lossy(last).chars().count() }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()))
}
