//! wattle-integration
