//! Whose credential to use: the one named, or the first of the usual places that can be read.

use std::{
    io,
    path::{Path, PathBuf},
};

use wattle_runtime::credential::{CredentialError, OperatorCredential};

use crate::failure::Failure;

/// What the control plane writes when it first starts.
const CONTROL_PLANE: &str = "/var/lib/wattle/controlplane/operator.json";

/// A credential and the file it came from.
pub(crate) struct Context {
    pub(crate) path: PathBuf,
    pub(crate) credential: OperatorCredential,
}

/// Finds and reads the credential.
pub(crate) fn load(named: Option<PathBuf>) -> Result<Context, Failure> {
    match named {
        Some(path) => read(&path).map_err(|error| unreadable(&path, &error)),
        None => search(&usual_places()),
    }
}

fn usual_places() -> Vec<PathBuf> {
    let own = dirs::config_dir().map(|folder| folder.join("wattle/operator.json"));
    own.into_iter().chain([PathBuf::from(CONTROL_PLANE)]).collect()
}

fn search(places: &[PathBuf]) -> Result<Context, Failure> {
    for path in places {
        match read(path) {
            Ok(context) => return Ok(context),
            Err(CredentialError::Read(error)) if isnt_mine(&error) => {}
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
    let places: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
    Err(Failure::Failed(format!(
        "no credential: there is none in {}\n\
         On the control plane's machine, run this as root or copy its operator.json to the first \
         of these; elsewhere, ask an administrator for one (`wattle operator create NAME`). Then \
         put it there, or name it with --context FILE or WATTLE_CONTEXT.",
        places.join(" or ")
    )))
}

fn isnt_mine(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

fn read(path: &Path) -> Result<Context, CredentialError> {
    Ok(Context { path: path.to_owned(), credential: OperatorCredential::load(path)? })
}

fn unreadable(path: &Path, error: &CredentialError) -> Failure {
    let path = path.display();
    Failure::Failed(match error {
        CredentialError::Read(why) if why.kind() == io::ErrorKind::PermissionDenied => format!(
            "{path}: {error}\nOnly its owner may read it: run this as them, or ask an \
             administrator for a credential of your own (`wattle operator create NAME`)."
        ),
        CredentialError::Read(_) => format!(
            "{path}: {error}\nName your credential file with --context FILE or WATTLE_CONTEXT."
        ),
        CredentialError::Malformed { .. } => format!(
            "{path}: {error}\nIt should be what the control plane or `wattle operator create` \
             wrote: take a fresh copy."
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn nowhere_says_where_and_how_to_get_one() {
        let folder = tempfile::tempdir().unwrap();
        let places = [folder.path().join("a.json"), folder.path().join("b.json")];
        let Err(failure) = search(&places) else { panic!("there is nothing to find") };
        let text = failure.to_string();
        for part in ["a.json or ", "b.json\n", "wattle operator create", "--context", "WATTLE_"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_named_file_is_the_only_one_tried() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.json");
        let Err(failure) = load(Some(path.clone())) else { panic!("there is no file") };
        let text = failure.to_string();
        assert!(text.contains("mine.json: reading the credential:"), "{text}");
        fs::write(&path, "{}").unwrap();
        let Err(failure) = load(Some(path)) else { panic!("it holds nothing") };
        assert!(failure.to_string().contains("malformed at line 1"), "{failure}");
    }

    #[test]
    fn a_file_of_somebody_else_says_how_to_get_ones_own() {
        let error = CredentialError::Read(io::ErrorKind::PermissionDenied.into());
        let text = unreadable(Path::new("/root/operator.json"), &error).to_string();
        for part in ["/root/operator.json: ", "Only its owner", "wattle operator create"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_damaged_file_is_said_and_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let places = [folder.path().join("a.json"), folder.path().join("b.json")];
        fs::write(&places[0], "nonsense").unwrap();
        let Err(failure) = search(&places) else { panic!("it holds nothing") };
        assert!(failure.to_string().contains("a.json: the credential file is malformed"));
    }
}
