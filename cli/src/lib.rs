//! wattle-cli
