//! The files that `-f` names: files, folders of them, and what somebody pipes in.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    Declared,
    place::{File, Mistakes},
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

/// Reads all files. Where anything in them is wrong, all of it is told and nothing else is done.
pub(crate) fn read(sources: &Sources) -> Result<Declared, Failure> {
    let (mut declared, mut mistakes) = (Declared::default(), Mistakes::default());
    let mut order = 0;
    for source in &sources.files {
        for (name, text) in texts(source)? {
            declared.add(&File::new(order, &name), &text, &mut mistakes);
            order += 1;
        }
    }
    mistakes.refuse("nothing was changed, because there are mistakes:")?;
    if declared.items.is_empty() && declared.expectations.is_empty() {
        return Err(Failure::Failed("there is nothing in these files".into()));
    }
    Ok(declared)
}

/// The names and texts of what one `-f` means.
fn texts(source: &Path) -> Result<Vec<(String, String)>, Failure> {
    if source == Path::new("-") {
        let text = text(io::stdin()).map_err(|error| Failure::Failed(format!("stdin: {error}")));
        return Ok(vec![("stdin".into(), text?)]);
    }
    let paths = if source.is_dir() { folder(source)? } else { vec![source.to_owned()] };
    let read = |path: PathBuf| {
        let text = fs::File::open(&path).and_then(text).map_err(|error| failed(&path, &error))?;
        Ok((path.display().to_string(), text))
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

fn text(from: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        let why = format!("more than {} MiB", MAX_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} isn't UTF-8"))
    })
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()))
}
