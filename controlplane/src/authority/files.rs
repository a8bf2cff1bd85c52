//! The CA's files: its certificates, and the one private key that a replica signs with. They may lie
//! on a mount that nobody can write and that is swapped as a whole, so they are only ever read by
//! their names, and made only where a new control plane begins.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::pki_types::CertificateDer;
use wattle_certs::{Ca, CaError, certificate_to_pem};
use wattle_runtime::files;
use zeroize::Zeroizing;

/// Where the CA's certificates and its private key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaFiles {
    /// PEM; others' certificates may lie beside the CA's own.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// Why the files make no authority.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// One of them can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no CA, and none can be made here.
    #[error(
        "there is no CA yet, and {} can't be written ({source}): make one with `wattle-controlplane \
         ca init`, and give it to every replica with --ca-cert and --ca-key", path.display()
    )]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One of them holds something else.
    #[error("{}: {source}: put back a copy of the file", path.display())]
    Content {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: CaError,
    },
    /// The key is there, and isn't the store's.
    #[error(
        "{} belongs to none of the store's CA certificates: copy the file from the replica that made \
         the store, or name the one that does with --ca-key", .0.display()
    )]
    Foreign(PathBuf),
    /// The store has a CA, and its key isn't here.
    #[error(
        "{}: no such file: the store's CA was made elsewhere; copy its key from another replica, or \
         name the file with --ca-key", .0.display()
    )]
    Missing(PathBuf),
}

impl CaFiles {
    /// Those of a folder, where nobody says otherwise.
    pub fn of(folder: &Path) -> Self {
        Self { certificate: folder.join("ca.crt"), key: folder.join("ca.key") }
    }

    /// The authority whose key is in the file and whose certificate is one of `roots`.
    pub fn read_key_of(&self, roots: &[CertificateDer<'static>]) -> Result<Ca, CaFileError> {
        let key = match fs::read_to_string(&self.key) {
            Ok(key) => Zeroizing::new(key),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CaFileError::Missing(self.key.clone()));
            }
            Err(source) => return Err(CaFileError::Read { path: self.key.clone(), source }),
        };
        let bundle: String = roots.iter().map(certificate_to_pem).collect();
        Ca::from_pem(&bundle, &key).map_err(|source| match source {
            CaError::Mismatch => CaFileError::Foreign(self.key.clone()),
            source => CaFileError::Content { path: self.key.clone(), source },
        })
    }

    /// The authority in the files, if there is a key.
    pub fn read(&self) -> Result<Option<Ca>, CaFileError> {
        if !self.key.exists() {
            return Ok(None);
        }
        let (certificates, key) = (read(&self.certificate)?, Zeroizing::new(read(&self.key)?));
        let ca = Ca::from_pem(&certificates, &key);
        ca.map(Some).map_err(|source| CaFileError::Content { path: self.key.clone(), source })
    }

    /// Writes both, none of which may exist. The certificate comes first: a key that is there has its
    /// certificate beside it.
    pub fn create(&self, ca: &Ca) -> Result<(), CaFileError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| CaFileError::Write { path, source }
        };
        // One without a key is what an interrupted creation leaves.
        let certificate = certificate_to_pem(ca.certificate());
        files::write_private(&self.certificate, certificate.as_bytes())
            .map_err(failed(&self.certificate))?;
        files::create_private(&self.key, ca.key_pem().as_bytes()).map_err(failed(&self.key))
    }

    /// Removes both: nobody will ever use them, or they are elsewhere now.
    pub fn discard(&self) {
        for path in [&self.key, &self.certificate] {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(%error, file = %path.display(), "not removed");
            }
        }
    }
}

fn read(path: &Path) -> Result<String, CaFileError> {
    fs::read_to_string(path).map_err(|source| CaFileError::Read { path: path.to_owned(), source })
}
