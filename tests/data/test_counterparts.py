import pytest

from ssl_jax.data import counterparts
from ssl_jax.types import UsageError


class Named:
    """A split of a set that nobody reads from."""

    def __init__(self, split, ids=None, examples=None, keeps_order=True):
        self.name, self.split, self._ids, self.keeps_order = "views", split, ids, keeps_order
        self.examples = len(ids) if examples is None else examples

    def ids(self):
        return self._ids


def refuse(message, a, b):
    with pytest.raises(UsageError, match=message) as caught:
        counterparts.rows(a, b)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("split_a", "split_b", "names_a", "names_b"),
    [
        ("testA", "testB", "3 1 2", "1 2 3"),
        ("testA", "testB", "testA/z.jpg testA/x.jpg testA/y.v2.png", "testB/x.png testB/y.v2.png testB/z"),
        ("testA", "testB", "TestA/3_A.jpg TestA/1_A.jpg TestA/2_a.jpg", "testB/1_B.jpg testB/2_b.jpg testB/3_B.png"),
        ("valA[:9]", "testA+valB", "valA/c.png valA/a.png valA/b.png", "valB/a.png testA/b.png valB/c.png"),
        # Folders that are no splits are part of a name.
        ("test", "train", "test/cat/1.png test/ant/1.png test/ant/2.png", "ant/1.png ant/2.png cat/1.png"),
        ("testA", "testB", "plan_B_A.png _A.png vitamin_b.png", "_B.png vitamin_b.png plan_B_B.png"),
    ],
)
def test_equal_names_belong_together(split_a, split_b, names_a, names_b):
    found = counterparts.rows(Named(split_a, names_a.split()), Named(split_b, names_b.split())).tolist()
    assert found == [2, 0, 1]


def test_without_names_the_order_counts():
    assert counterparts.rows(Named("testA", examples=3), Named("testB", examples=3)).tolist() == [0, 1, 2]
    assert counterparts.rows(Named("testA", ["x", "y"]), Named("testB", examples=2)).tolist() == [0, 1]
    refuse(
        r"'testA' \(3 images\) and data set 'views', split 'testB' \(4\) cannot be paired: they have no ids and differ",
        Named("testA", examples=3),
        Named("testB", examples=4),
    )
    refuse(
        r"cannot be paired: they have no ids and were shuffled when they were written: prepare them from a folder",
        Named("testA", examples=3),
        Named("testB", examples=3, keeps_order=False),
    )


def test_a_picture_without_a_counterpart_is_named():
    a, b = Named("testA", ["1_A.png", "2_A.png", "3_A.png"]), Named("testB", ["1_B.png"])
    message = "of data set 'views', split '{}' have no counterpart in data set 'views', split '{}', the first of them "
    refuse("2 of 3 pictures " + message.format("testA", "testB") + "'2_A.png'", a, b)
    message = "1 of 2 pictures " + message.format("testB", "testA") + r"'5\.png'"
    refuse(message, Named("testA", ["1"]), Named("testB", ["5.png", "1"]))


def test_two_pictures_of_one_name_are_named():
    twice = Named("testB", ["testB/1.png", "testB/2.png", "testB/2_B.jpg"])
    message = r"split 'testB' has 2 pictures called '2' \(testB/2.png, testB/2_B.jpg\): rename them"
    refuse(message, Named("testA", ["1", "2"]), twice)
    refuse(message, twice, Named("testA", ["1", "2"]))
