//! `docs/protocol.md` is normative, so its tables are held to the code.
