//! wattle-certs
