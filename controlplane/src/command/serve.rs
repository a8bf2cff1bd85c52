//! `serve`: builds the replica, says where it is, runs it until a signal.

use std::{
    io::{Write as _, stdout},
    path::PathBuf,
};

use wattle_runtime::{
    shutdown::{Shutdown, signals},
    telemetry,
};

use crate::{app, config::Settings, descriptors};

#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// A TOML file with the same settings, named as here
    #[arg(long, env = "WATTLE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = self.settings.check(self.config.as_deref())?;
        telemetry::init("wattle-controlplane", config.log_format)?;
        descriptors::raise_limit();
        let shutdown = Shutdown::new();
        shutdown.spawn("signals", watch_signals(shutdown.clone()));
        let building = app::build(config);
        let Some(bound) = shutdown.token().run_until_cancelled(building).await else {
            return Ok(());
        };
        let bound = bound?;
        // Whoever started it may have closed the pipe; that is no reason not to serve.
        let _ = writeln!(stdout(), "{}", bound.greeting());
        bound.run(&shutdown).await;
        Ok(())
    }
}

async fn watch_signals(shutdown: Shutdown) {
    match signals().await {
        Ok(signal) => tracing::info!(signal, "asked to stop"),
        Err(error) => tracing::error!(%error, "signals can't be watched"),
    }
    shutdown.begin();
}
