//! wattle-agent
