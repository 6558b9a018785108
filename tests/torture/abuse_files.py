"""The writers of files: as fast as they can, each in its own way, in a process of its own."""

import os

from abuse_plan import LINES_OF_FILE, lines_of

WRITERS = 3
STRIDE = 500            # files that a writer makes in a row


def content(file):
    return "".join(f"g-{LINES_OF_FILE * file + line}\n" for line in range(lines_of(file))).encode()


def create(directory, name, data, _hidden):
    """In its place: opened, written in two parts, closed."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory)
    if data:
        os.write(fd, data[:3])
        os.write(fd, data[3:])
    os.close(fd)


def rename(directory, name, data, hidden):
    fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory)
    if data:
        os.write(fd, data)
    os.close(fd)
    os.rename(hidden, name, src_dir_fd=directory, dst_dir_fd=directory)


def link(directory, name, data, hidden):
    """No closing is seen of this name: only a scan finds when it is finished."""
    fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory)
    if data:
        os.write(fd, data)
    os.close(fd)
    os.link(hidden, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.unlink(hidden, dir_fd=directory)


def way_of(number):
    """Most are made or renamed; of links come some."""
    if number % 100 == 99:
        return link
    return rename if number % 3 == 0 else create


def write_files(spool, wave, writer):
    """This writer's share of the files. Runs in a process of its own."""
    directory = os.open(spool, os.O_RDONLY | os.O_DIRECTORY)
    hidden = f".w{writer}.tmp"
    numbers = [(kind, number) for kind, all_of_kind in (("f", wave.f), ("g", wave.g))
               for first in range(all_of_kind.start + writer * STRIDE, all_of_kind.stop, WRITERS * STRIDE)
               for number in range(first, min(first + STRIDE, all_of_kind.stop))]
    # Both kinds come mixed, whatever there is of each.
    numbers.sort(key=lambda one: (one[1] - (wave.f if one[0] == "f" else wave.g).start)
                 / len(wave.f if one[0] == "f" else wave.g))
    for kind, number in numbers:
        way_of(number)(directory, f"{kind}-{number}", content(number) if kind == "g" else b"", hidden)
    os.close(directory)


def drop_large(spool, wave):
    """The large file, by a rename."""
    hidden = os.path.join(spool, ".large.tmp")
    with open(hidden, "w", encoding="ascii") as file:
        file.writelines(wave.lines())
    os.rename(hidden, os.path.join(spool, wave.large))
