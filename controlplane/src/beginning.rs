//! Whether a control plane may begin in a store that holds none. A store that was lost must not come
//! back empty under the CA that machines know: it would look healthy and know nobody.

use std::{io::ErrorKind, path::Path};

use anyhow::{Context as _, anyhow};
use wattle_runtime::files;

use crate::{app, authority::CaFiles, config::Config};

/// Beside a CA that `ca init` made and no control plane has begun with.
pub(crate) const UNUSED_CA: &str = "ca.unused";

/// Whether the data directory's CA belongs to a store that has begun. Without its records that store
/// was lost, and a new one with the old CA would look healthy and know nobody. A CA that nobody has
/// used, made beforehand or at a first start that was interrupted, has a mark beside it.
pub(crate) fn has_signed(config: &Config) -> anyhow::Result<bool> {
    let unused = config.data_dir.join(UNUSED_CA);
    if config.ca != CaFiles::of(&config.data_dir) || unused.exists() {
        return Ok(false);
    }
    let store = app::store_file(&config.data_dir);
    let empty = std::fs::metadata(&store).map_or(true, |file| file.len() == 0);
    let signed = config.ca.key.exists();
    if empty && signed {
        return Err(lost(config));
    }
    if empty {
        files::write_private(&unused, b"").with_context(|| unused.display().to_string())?;
    }
    Ok(signed)
}

pub(crate) fn lost(config: &Config) -> anyhow::Error {
    anyhow!(
        "{} is lost, and {} is there: put back a copy of the store, `restore` a backup, or move the \
         CA's files away to begin a new control plane that no machine knows",
        app::store_file(&config.data_dir).display(),
        config.ca.key.display()
    )
}

/// From here on a CA without its store is a lost store.
pub(crate) fn begun(data_dir: &Path) {
    match std::fs::remove_file(data_dir.join(UNUSED_CA)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(%error, file = UNUSED_CA, "not removed from the data directory");
        }
        _ => {}
    }
}
