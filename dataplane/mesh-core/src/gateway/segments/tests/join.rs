//! Packets become superpackets: each rule.
