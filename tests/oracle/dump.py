#!/usr/bin/env python3
"""Prints everything that a backup must bring back, one JSON line per path, sorted by path bytes.

Independent of holdfast: nothing here knows its format or its code. Names are base64; a hard link names
the first path (in byte order) of its group within the tree; times of directories included; atime, ctime,
inode and device numbers of the filesystem left out.
"""
import base64, hashlib, json, os, stat, sys

def main(root, skip_xattrs):
    os.chdir(root)  # relative names, so that trees deeper than PATH_MAX can be walked by fchdir
    first, lines = {}, []
    def visit(dirfd, name, path):
        st = os.stat(name, dir_fd=dirfd, follow_symlinks=False)
        kind = stat.S_IFMT(st.st_mode)
        line = {"path": base64.b64encode(path).decode(), "type": kind, "mode": stat.S_IMODE(st.st_mode),
                "uid": st.st_uid, "gid": st.st_gid, "mtime_ns": st.st_mtime_ns}
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            line["rdev"] = st.st_rdev
        if kind == stat.S_IFLNK:
            line["target"] = base64.b64encode(os.readlink(name, dir_fd=dirfd)).decode()
        if kind == stat.S_IFREG:
            line["size"] = st.st_size
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=dirfd)
            try:
                digest = hashlib.sha256()
                while block := os.read(fd, 1 << 20):
                    digest.update(block)
                line["sha256"] = digest.hexdigest()
                line["xattrs"] = {} if skip_xattrs else xattrs(fd)
            finally:
                os.close(fd)
        if kind != stat.S_IFDIR and st.st_nlink > 1:
            first.setdefault((st.st_dev, st.st_ino), []).append((path, line))
        if kind == stat.S_IFDIR:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dirfd)
            try:
                line["xattrs"] = {} if skip_xattrs else xattrs(fd)
                for child in sorted(os.fsencode(n) for n in os.listdir(fd)):
                    visit(fd, child, path + b"/" + child if path else child)
            finally:
                os.close(fd)
        lines.append((path, line))
    sys.setrecursionlimit(100_000)
    visit(None, b".", b"")
    for group in first.values():
        smallest = min(path for path, _ in group)
        for path, line in group:
            if path != smallest:
                line["hardlink"] = base64.b64encode(smallest).decode()
    for _, line in sorted(lines, key=lambda pair: pair[0]):
        print(json.dumps(line, sort_keys=True))

def xattrs(fd):
    ignored = ("security.selinux", "security.ima", "security.evm", "trusted.")
    names = [n for n in os.listxattr(fd) if not n.startswith(ignored)]
    return {n: base64.b64encode(os.getxattr(fd, n)).decode() for n in sorted(names)}

if __name__ == "__main__":
    main(sys.argv[1], "--skip-xattrs" in sys.argv)
