"""The agent's seccomp profile: what it must deny is denied by the kernel, what the agent needs is not."""

import ctypes
import ctypes.util
import errno
import json
import os

import pytest

from chart import CHART, ROOT

PROFILE = ROOT / "deploy/seccomp/holdfast-agent.json"
DENIED = """
    mount umount2 mount_setattr move_mount open_tree fsopen fsmount fsconfig fspick pivot_root chroot ptrace process_vm_readv
    process_vm_writev process_madvise pidfd_getfd kcmp bpf kexec_load kexec_file_load init_module finit_module delete_module
    keyctl add_key request_key unshare setns perf_event_open io_uring_setup io_uring_enter io_uring_register userfaultfd
    truncate mknod mknodat swapon swapoff reboot acct quotactl iopl ioperm settimeofday clock_settime memfd_secret
""".split()
# Architecture-independent numbers, or by machine: x86-64 and arm64 (the generic table).
NUMBERS = {
    "x86_64": {"mount": 165, "ptrace": 101, "bpf": 321, "unshare": 272, "keyctl": 250, "io_uring_setup": 425, "truncate": 76,
               "perf_event_open": 298, "open_by_handle_at": 304, "fanotify_init": 300, "clone3": 435},
    "aarch64": {"mount": 40, "ptrace": 117, "bpf": 280, "unshare": 97, "keyctl": 219, "io_uring_setup": 425, "truncate": 45,
                "perf_event_open": 241, "open_by_handle_at": 265, "fanotify_init": 262, "clone3": 435},
}
O_PATH = 0o10000000
ACTIONS = {"SCMP_ACT_ALLOW": lambda rule: 0x7FFF0000, "SCMP_ACT_ERRNO": lambda rule: 0x00050000 | rule.get("errnoRet", 1)}
OPERATORS = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}


@pytest.fixture(scope="module")
def profile():
    return json.loads(PROFILE.read_text())


def allowed(profile):
    return {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def test_it_is_the_charts(profile):
    assert profile == json.loads((CHART / "seccomp/holdfast-agent.json").read_text())


def test_what_is_not_listed_is_denied(profile):
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", errno.EPERM)
    assert not allowed(profile) & set(DENIED)
    names = [n for rule in profile["syscalls"] for n in rule["names"]]
    assert len(names) == len(set(names))
    # What a container runtime reads itself has no other keys: those of Docker's own format are not understood.
    for rule in profile["syscalls"]:
        assert set(rule) <= {"comment", "names", "action", "errnoRet", "args"}


class Argument(ctypes.Structure):
    _fields_ = [("index", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def load(library, profile):
    """Puts this process under the profile."""
    library.seccomp_init.restype = ctypes.c_void_p
    filter_ = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(0x00050000 | profile["defaultErrnoRet"])))
    for rule in profile["syscalls"]:
        action = ctypes.c_uint32(ACTIONS[rule["action"]](rule))
        conditions = [Argument(a["index"], OPERATORS[a["op"]], a["value"], a.get("valueTwo", 0)) for a in rule.get("args", [])]
        array = (Argument * max(1, len(conditions)))(*conditions)
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            # Negative: this machine, or this library, has no such call.
            if number >= 0:
                added = library.seccomp_rule_add_array(filter_, action, ctypes.c_int(number), len(conditions), array)
                assert added == 0, (name, added)
    assert library.seccomp_load(filter_) == 0


def under(profile, calls):
    """The errno of each call, made in a process under the profile."""
    name = ctypes.util.find_library("seccomp")
    if not name:
        pytest.skip("libseccomp is not installed")
    libc, library = ctypes.CDLL(None, use_errno=True), ctypes.CDLL(name)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            load(library, profile)
            told = []
            for number, *arguments in calls:
                ctypes.set_errno(0)
                libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in arguments))
                told.append(ctypes.get_errno())
            os.write(write, json.dumps(told).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    assert told, "the process under the profile told nothing"
    return json.loads(told)


def test_the_kernel_denies_and_allows(profile):
    numbers = dict(NUMBERS.get(os.uname().machine, {}))
    if not numbers:
        pytest.skip(f"no numbers of system calls for {os.uname().machine}")
    handle = numbers.pop("open_by_handle_at")
    fanotify = numbers.pop("fanotify_init")
    clone3 = numbers.pop("clone3")
    calls = [(n, -1, 0, 0, 0, 0) for n in numbers.values()]
    told = under(profile, calls)
    assert dict(zip(numbers, told)) == dict.fromkeys(numbers, errno.EPERM)
    # A bad address is told only by a call that is let through.
    reading, looking, thread, group = under(
        profile, [(handle, -1, 0, os.O_RDONLY), (handle, -1, 0, O_PATH | os.O_CLOEXEC), (clone3, 0, 0), (fanotify, 0x200, 0)])
    assert (reading, looking, thread) == (errno.EPERM, errno.EFAULT, errno.ENOSYS)
    # FAN_REPORT_FID without CAP_SYS_ADMIN; older kernels say EPERM or EINVAL by themselves.
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (5, 13):
        assert group == 0
