//! A network of its own for a test.

use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkUnspec;

/// Runs `body` on a thread in a network namespace that has only a loopback device and ends with the thread.
pub(super) fn in_own_network<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own needs root");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async {
                let (connection, netlink, _) = rtnetlink::new_connection().expect("netlink");
                tokio::spawn(connection);
                let up = LinkUnspec::new_with_index(1).up().build();
                netlink.link().set(up).execute().await.expect("set lo up");
            });
            drop(runtime);
            body()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
