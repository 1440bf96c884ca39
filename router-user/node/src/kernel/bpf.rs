//! The bpf(2) calls that the loader has no function for (kernel: `include/uapi/linux/bpf.h`).
#![expect(unsafe_code, reason = "makes system calls")]

use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytemuck::Pod;
use nix::libc;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;

/// Programs of a hook that are asked for; more than 64 the kernel takes at none (`BPF_MPROG_MAX`).
const MAX_PROGRAMS: usize = 64;

/// The beginning of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoRequest {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// `union bpf_attr` for `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
#[derive(Default)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    n_programs: u32,
    padding: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    map_type: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

/// `union bpf_attr` for one element.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` for a batch.
#[repr(C)]
struct BatchCall {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Makes a ring buffer map. The loader makes maps that the object declares; rings are made one by one.
pub(super) fn create_ring(bytes: u32) -> io::Result<OwnedFd> {
    let mut create = Create {
        map_type: BPF_MAP_TYPE_RINGBUF,
        key_size: 0,
        value_size: 0,
        max_entries: bytes,
    };
    let fd = call(BPF_MAP_CREATE, &mut create)?;
    // SAFETY: a descriptor that the kernel has just given us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Opens what is pinned at `path`.
///
/// # Errors
/// Nothing is, or the kernel refuses.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut pin = Pin {
        path: path.as_ptr() as u64,
        ..Pin::default()
    };
    let fd = call(BPF_OBJ_GET, &mut pin)?;
    // SAFETY: a descriptor that the kernel has just given us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Pins a map or a program at `path`.
///
/// # Errors
/// Something is there, or the kernel refuses.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut pin = Pin {
        path: path.as_ptr() as u64,
        fd: object.as_raw_fd() as u32,
        flags: 0,
    };
    call(BPF_OBJ_PIN, &mut pin).map(drop)
}

/// A hook of TCX, by its number (`BPF_TCX_INGRESS` and `BPF_TCX_EGRESS`).
#[derive(Clone, Copy, Debug)]
pub(super) enum TcxHook {
    Ingress = 46,
    Egress = 47,
}

/// Returns the ids of the programs that packets come by at an interface before all filters (TCX). A kernel before 6.6 has
/// no such hook.
///
/// # Errors
/// The kernel refuses to say.
pub(super) fn tcx(interface: u32, hook: TcxHook) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut query = Query {
        target_ifindex: interface,
        attach_type: hook as u32,
        program_ids: ids.as_mut_ptr() as u64,
        n_programs: MAX_PROGRAMS as u32,
        ..Query::default()
    };
    match call(BPF_PROG_QUERY, &mut query) {
        Ok(_) => Ok(ids.into_iter().take(query.n_programs as usize).collect()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A map whose keys and values are `K` and `V`.
#[derive(Debug)]
pub(super) struct TypedMap<K, V> {
    fd: OwnedFd,
    types: PhantomData<(K, V)>,
}

/// What a batch of lookups brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// How many keys and values were filled in.
    pub(super) len: usize,
    /// Where the next batch goes on; `None` after the last one.
    pub(super) next: Option<u32>,
}

impl<K: Pod, V: Pod> TypedMap<K, V> {
    /// Takes a map, whose sizes of keys and values are those of `K` and `V`: the kernel reads and writes as many bytes as
    /// the map says.
    ///
    /// # Errors
    /// The sizes are others, or the kernel does not tell them.
    pub(super) fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        let mut info = MapInfo::default();
        let mut request = InfoRequest {
            fd: map.as_raw_fd() as u32,
            info_len: size_of::<MapInfo>() as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        };
        call(BPF_OBJ_GET_INFO_BY_FD, &mut request)?;
        let (key, value) = (info.key_size as usize, info.value_size as usize);
        if (key, value) != (size_of::<K>(), size_of::<V>()) {
            return Err(io::Error::other(format!(
                "the map has keys of {key} and values of {value} bytes, not {} and {}",
                size_of::<K>(),
                size_of::<V>()
            )));
        }
        Ok(Self {
            fd: map.try_clone_to_owned()?,
            types: PhantomData,
        })
    }

    /// Deletes an element; returns once no program can hold it any more, if it is a map in a map.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn delete(&self, key: &K) -> io::Result<()> {
        let mut element = Element {
            map_fd: self.fd.as_raw_fd() as u32,
            padding: 0,
            key: std::ptr::from_ref(key) as u64,
            value: 0,
            flags: 0,
        };
        call(BPF_MAP_DELETE_ELEM, &mut element).map(drop)
    }

    /// Reads entries of a hash map, from the bucket `from` or from the beginning, into `keys` and `values`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn lookup_batch(
        &self,
        from: Option<u32>,
        keys: &mut [K],
        values: &mut [V],
    ) -> io::Result<Batch> {
        let mut next = 0_u32;
        let mut batch = BatchCall {
            in_batch: from.as_ref().map_or(0, |from| std::ptr::from_ref(from) as u64),
            out_batch: std::ptr::from_mut(&mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: keys.len().min(values.len()) as u32,
            map_fd: self.fd.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        let outcome = call(BPF_MAP_LOOKUP_BATCH, &mut batch);
        let len = batch.count as usize;
        match outcome {
            Ok(_) => Ok(Batch {
                len,
                next: Some(next),
            }),
            // The end of the map; what was found before it counts.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Batch { len, next: None }),
            Err(error) => Err(error),
        }
    }

    /// Deletes `keys`; one that is gone already is skipped.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn delete_batch(&self, mut keys: &[K]) -> io::Result<()> {
        while !keys.is_empty() {
            let mut batch = BatchCall {
                in_batch: 0,
                out_batch: 0,
                keys: keys.as_ptr() as u64,
                values: 0,
                count: keys.len() as u32,
                map_fd: self.fd.as_raw_fd() as u32,
                elem_flags: 0,
                flags: 0,
            };
            match call(BPF_MAP_DELETE_BATCH, &mut batch) {
                Ok(_) => break,
                // It stops at a key that is not there, and says how many it did before.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    keys = keys.get(batch.count as usize + 1..).unwrap_or_default();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes size_of::<T>() bytes of `attributes`, and what they point to: live memory of
    // the caller's, of the lengths that stand beside it and of the sizes that `TypedMap::new` has compared.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
