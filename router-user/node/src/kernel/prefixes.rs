//! Changes of the prefix table while the programs run.

use std::io::ErrorKind;

use aya::maps::{LpmTrie, MapError};

use super::error::KernelError;
use super::maps::{map, map_failed};
use super::object::Kernel;
use super::tables::prefix_key;
use router_common::names;
use stream_router_engine::prefix_steps::PrefixStep;

impl Kernel {
    /// Takes `steps` in the prefix table, in their order. What flows have looked up stays until
    /// [`Kernel::renew_peers`].
    ///
    /// # Errors
    /// The prefix table cannot be written; the steps before that one are taken.
    pub fn change_prefixes(&self, steps: impl IntoIterator<Item = PrefixStep>) -> Result<(), KernelError> {
        let mut ebpf = self.lock();
        let mut table: LpmTrie<_, [u8; 16], u32> =
            LpmTrie::try_from(map(&mut ebpf, names::PEERS)?).map_err(map_failed("open", names::PEERS))?;
        for step in steps {
            let done = match step {
                PrefixStep::Write(prefix, owner) => table.insert(&prefix_key(prefix), owner, 0),
                PrefixStep::Remove(prefix) => match table.remove(&prefix_key(prefix)) {
                    // Gone already.
                    Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
                        Ok(())
                    }
                    done => done,
                },
            };
            done.map_err(map_failed("write", names::PEERS))?;
        }
        Ok(())
    }
}
