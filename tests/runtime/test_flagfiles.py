import sys

import pytest

from sare_tf.runtime import flagfiles


def test_flags_of_files_and_of_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAGS", str(tmp_path))
    (tmp_path / "base.flags").write_text("--seed=1\n// no flag\n\n--k=2")
    (tmp_path / "own.flags").write_text(
        "# no flag\n  # nor this\n--flagfile=$FLAGS/base.flags\n  --k=3  \n"
    )
    own = f"{tmp_path}/own.flags"
    assert flagfiles.insert(
        ["locate", "--k=1", f"--flagfile={own}", "--k=4", "photo.jpg"]
    ) == ["locate", "--k=1", "--seed=1", "--k=2", "--k=3", "--k=4", "photo.jpg"]
    assert flagfiles.insert(["x", "-flagfile", own, "--", "--flagfile=y"]) == [
        *("x", "--seed=1", "--k=2", "--k=3", "--", "--flagfile=y")
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_editors_and_shells_write(tmp_path, encoding, end):
    lines = ["--dataset=Straße", "# Größe", "--seed=1"]
    path = tmp_path / "own.flags"
    path.write_bytes(end.join([*lines, ""]).encode(encoding))
    assert flagfiles.insert([f"--flagfile={path}"]) == [lines[0], lines[2]]


def test_quotes_are_those_of_a_shell(tmp_path):
    path = tmp_path / "own.flags"
    path.write_text("--records=\"my # records\"\n--index='a b'\n--out=a'b\"")
    expected = ["--records=my # records", "--index=a b", "--out=a'b\""]
    assert flagfiles.insert([f"--flagfile={path}"]) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--index=runs/index # mine", "comments on lines of their own"),
        ("--index=runs\0/index", "flagfile in UTF-8"),
    ],
)
def test_no_value_takes_up_what_is_none(tmp_path, line, message):
    path = tmp_path / "own.flags"
    path.write_text(line)
    with pytest.raises(ValueError, match=message):
        flagfiles.insert([f"--flagfile={path}"])


def test_what_is_no_flagfile(tmp_path):
    path = tmp_path / "a.flags"
    with pytest.raises(ValueError, match="Expected a flagfile.*No such file"):
        flagfiles.insert([f"--flagfile={path}"])
    path.write_bytes(b"--dataset=Stra\xdfe")
    with pytest.raises(ValueError, match="a.flags'.*Save it as UTF-8"):
        flagfiles.insert([f"--flagfile={path}"])
    path.write_text(f"--flagfile={path}")
    with pytest.raises(ValueError, match="do not name themselves.*Remove the"):
        flagfiles.insert([f"--flagfile={path}"])
    with pytest.raises(ValueError, match="Expected a flagfile. Received: flag"):
        flagfiles.insert(["--flagfile"])


def test_the_next_command_names_the_flagfiles(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["pytest", "tests"])
    assert flagfiles.next_command("train") == (
        "python -m sare_tf.train --flagfile=..."
    )
    given = ["train", "--seed=1", "--flagfile=a b.flags", "-flagfile", "c"]
    monkeypatch.setattr(sys, "argv", given)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    flags = "-m sare_tf.index '--flagfile=a b.flags' --flagfile=c --k=1"
    command = flagfiles.next_command("index", "--k=1")
    assert command == f"bin/python {flags}"
    # Once it is the python of the shell.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch(mode=0o755)
    command = flagfiles.next_command("index", "--k=1")
    assert command == f"python {flags}"


def test_flagfiles_of_the_package(tmp_path):
    (tmp_path / "own.flags").write_text("--flagfile=sare_tf:demo\n--k=2\n")
    given = flagfiles.insert([f"--flagfile={tmp_path / 'own.flags'}"])
    assert given[0] == "--places=1000"
    assert given[-1] == "--k=2"
    assert flagfiles.insert(["--flagfile=sare_tf:demo"]) == given[:-1]
    joint = flagfiles.insert(["--flagfile=sare_tf:pitts30k_sare_joint"])
    assert "--reader=netvlad_mat" in joint
    with pytest.raises(FileNotFoundError, match="demo, gsv.*'sare_tf:dem'"):
        flagfiles.insert(["--flagfile=sare_tf:dem"])
