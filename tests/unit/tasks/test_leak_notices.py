"""What is said of held-out rows that stand in the train rows, too."""

NAMED = {"train_file": "train.csv", "validation_file": "validation.csv", "test_file": "test.csv"}


def test_a_leak_is_told_with_its_count(prepared_rows, capsys):
    contents = {
        "train.csv": "text,label\nsame,0\nsame,0\nother,1\n,0\n",
        "validation.csv": "text,label\nnew,1\n,1\n",
        "test.csv": "text,label\nsame,1\nsame,0\nother,0\nSame,1\n",
    }
    prepared_rows(contents, **NAMED)
    said = capsys.readouterr().err
    assert "3 of 4 test rows also stand in the train rows" in said and "validation rows also" not in said


def test_a_pair_leaks_only_as_a_pair(prepared_rows, capsys):
    contents = {
        "train.csv": "text,second,label\na,b,0\nc,d,1\n",
        "validation.csv": "text,second,label\na,d,0\n",
        "test.csv": "text,second,label\nc,d,0\n",
    }
    prepared_rows(contents, text_pair_column="second", **NAMED)
    said = capsys.readouterr().err
    assert "1 of 1 test rows" in said and "validation rows also" not in said
