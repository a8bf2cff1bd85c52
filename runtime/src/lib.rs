//! wattle-runtime
